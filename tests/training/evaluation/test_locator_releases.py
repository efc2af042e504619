"""Releases are compared on the cells that both ways find, with the file that is served and the rule that decides."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from services.common.phantom import CellKind, single_cell
from services.common.releases import ReleaseStore
from services.preprocessing.unsharpening import FocusParameters
from tests.paths import ROOT
from training.architectures.locator import LocatorNetwork
from training.crops.locator_file import opened
from training.crops.making import prepare as prepare_crops
from training.crops.packs import Pack
from training.datasets.dataset import Dataset, GroupKind, ImageKind, LabelledImage, Subset
from training.evaluation import locator_releases
from training.evaluation.locator_releases import agreement, both_ways, difference_of_auc, table
from training.export.locator import export_locator
from training.metrics.by_patient import Interval
from training.recipes.config import Input

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finds_nothing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("locator") / "model.onnx"
    torch.manual_seed(0)
    export_locator(LocatorNetwork(4).eval(), path)
    return path


def test_the_file_gives_maps_of_half_the_side(finds_nothing: Path) -> None:
    maps = opened(finds_nothing)(np.full((64, 96, 3), 224, np.uint8))
    assert maps.shape[1:] == (32, 48)
    assert opened(finds_nothing) is opened(finds_nothing)


def test_cells_that_one_way_does_not_find_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = []
    for seed in range(2):
        path = tmp_path / f"{seed}.png"
        Image.fromarray(single_cell(seed, CellKind.BLAST, 264, 52.0).image).save(path)
        images.append(LabelledImage(path, "cells", str(seed), ("blast",), f"P{seed}", Subset.CALIBRATION, is_blast=seed % 2))
    dataset = Dataset("cells", ImageKind.CELL, ("blast",), GroupKind.PATIENT, tuple(images))
    release = ReleaseStore(ROOT / "releases", ROOT / "model_repository").resolve("plain-resnet-1")
    whole = prepare_crops

    def prepare(dataset: Dataset, wanted: Input, focus: FocusParameters, locator: Path | None) -> Pack:
        made = whole(dataset, wanted, focus)
        return made if locator is None else made.select(made.keys == "1")

    monkeypatch.setattr(locator_releases, "prepare", prepare)
    one, other = both_ways(dataset, release, tmp_path / "locator.onnx")
    assert one.keys.tolist() == other.keys.tolist() == ["1"]
    found = agreement(one, other)
    assert (found["cells"], found["centre, median"], found["radius ratio, median"]) == (1, 0.0, 1.0)


def test_the_difference_has_an_interval_by_patient() -> None:
    labels = np.array([0, 1] * 20)
    patients = np.array([f"P{i // 4}" for i in range(40)])
    good, bad = labels + 0.0, 1.0 - labels
    assert difference_of_auc(good, bad, labels, patients) == Interval(1.0, 1.0, 1.0)
    assert difference_of_auc(good, good, labels, patients) == Interval(0.0, 0.0, 0.0)


def test_a_fall_of_more_than_is_allowed_is_named() -> None:
    row = {"stain": 0.95, "locator": 0.94, "difference": -0.01, "low": -0.02, "high": 0.0}
    record = {"releases": {"a": row, "b": {**row, "difference": -0.003}}, "images": 3, **dict.fromkeys(_MEASURES, 1.0)}
    lines = list(table(record))
    assert [("trained anew" in line) for line in lines[2:4]] == [True, False]


_MEASURES = (
    "cells",
    "centre, median",
    "centre, 95th percentile",
    "radius ratio, median",
    "radius ratio, 5th percentile",
    "radius ratio, 95th percentile",
)


def test_the_kept_figures_print_without_data(capsys: pytest.CaptureFixture[str]) -> None:
    record = ROOT / "docs" / "runs" / "locator-releases.json"
    locator_releases.main(["--print", "--record", str(record)])
    printed = capsys.readouterr().out.splitlines()
    assert printed == list(table(json.loads(record.read_text(encoding="utf-8"))))
    page = (ROOT / "docs" / "location.md").read_text(encoding="utf-8")
    assert all(line in page for line in printed if line.startswith("| `"))
