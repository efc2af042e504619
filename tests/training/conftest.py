"""Training tests use one thread: their networks are tiny, and more threads only wait for each other. A small run, and its release."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.training.small import cell_pack, tissue_pack, write_recipe
from tests.training.small_release import build_options, other_source_pack, sources_of
from training.crops.packs import write_pack
from training.learning.devices import Worker
from training.recipes.config import load_recipe
from training.releases.build import build
from training.runs.folder import TransferOptions
from training.runs.transfer import run


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with packs, a final run and a cross-validated run."""
    folder = tmp_path_factory.mktemp("trained")
    write_pack(tissue_pack(), folder / "tissue.pack")
    write_pack(cell_pack(patients=24), folder / "cells.pack")
    write_pack(other_source_pack(), folder / "pbc.pack")
    recipe = load_recipe(str(write_recipe(folder, architecture="resnet18", epochs=6)))
    sources = sources_of(folder)
    for name, folds in (("final", 0), ("cv", 3)):
        run(TransferOptions(recipe, "", "", 0, folds, folder / "runs", name), sources, Worker(torch.device("cpu")))
    return folder


@pytest.fixture(scope="module")
def built(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built")
    result = build(build_options(trained, out), sources_of(trained))
    assert [g.file for g in result.gates] == ["model_int8.onnx", "model_fp16.onnx"]
    return out
