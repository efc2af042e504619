"""The page for laboratories with their own data: its commands, as written, on a small folder in the real layout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from services.common.phantom import CellKind, single_cell
from services.common.releases import Detects, ReleaseStore
from tests.paths import ROOT

PAGE = ROOT / "docs" / "own-data.md"
PER_CLASS = 120
"""Images of each class, ten to a block."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that holds ``ALL_IDB2`` as published, of drawn cells: lymphoblasts first."""
    images = tmp_path / "ALL_IDB2" / "img"
    images.mkdir(parents=True)
    for number in range(1, 2 * PER_CLASS + 1):
        is_blast = number <= PER_CLASS
        drawn = single_cell(number, CellKind.BLAST if is_blast else CellKind.LYMPHOCYTE, side=257)
        Image.fromarray(drawn.image).save(images / f"Im{number:03d}_{int(is_blast)}.tif")
    return tmp_path


def _commands() -> str:
    (block,) = (b for b in re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S) if "release build" in b)
    trial = re.search(r'for a trial in a minute: "([^"]+)"', block)
    assert trial
    return re.sub(r'TRIAL="".*', f'TRIAL="{trial[1]}"', block)


def test_from_a_folder_to_a_release_that_detects_lymphoblasts(folder: Path) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["bash", "-euc", _commands()], cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (release,) = ReleaseStore(folder / "releases", folder / "model_repository").releases
    assert (release.id, release.detects) == ("our-lab-1", Detects.LYMPHOBLAST)
    assert "our-lab-1" in done.stdout
    assert "our-lab-1" in (folder / "report.html").read_text(encoding="utf-8")
    card = (folder / "model_repository" / "our_lab_1" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "its figures may be those of patients it has seen" in card
