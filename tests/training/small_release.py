"""What a small run needs to become a release: packs of three data sets and where everything is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.training.small import FOCUS, cell_pack
from training.crops.packs import Pack
from training.crops.sources import Sources
from training.datasets.dataset import GroupKind
from training.releases.build import BuildOptions


def other_source_pack() -> Pack:
    pack = cell_pack(patients=6, seed=9)
    names = ("ig", "lymphocyte")
    header = replace(pack.header, dataset="pbc_cells", classes=names, grouped_by=GroupKind.NONE, focus=FOCUS)
    return replace(pack, header=header, is_blast=np.zeros(len(pack), np.int8))


def sources_of(folder: Path) -> Sources:
    return Sources.find([folder / n for n in ("tissue.pack", "cells.pack", "pbc.pack")], folder / "cache")


def build_options(trained: Path, out: Path, *, cv: bool = True) -> BuildOptions:
    return BuildOptions(trained / "runs" / "final", trained / "runs" / "cv" if cv else None, "small-1", out / "releases", out / "model_repository")
