"""Tests of simple classifiers on embeddings that are not trained."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from tests.training.evaluation.all_idb.conftest import pack_of
from training.crops.packs import SUFFIX, Pack, write_pack
from training.crops.sources import Sources
from training.datasets.all_idb_fields import LYMPHOBLAST
from training.datasets.dataset import Dataset, GroupKind, ImageKind, LabelledImage, Subset
from training.datasets.splits import Split
from training.errors import ArrayFileError, SplitError
from training.evaluation.all_idb import frozen
from training.evaluation.all_idb.frozen import (
    RIDGES,
    Embedded,
    Embedder,
    FrozenFigures,
    FrozenRow,
    SmudgedCells,
    by_neighbour,
    by_regression,
    embedded,
    honest_figures,
    linear_layer_figures,
    papers_figures,
    papers_splits,
    scored_part,
    smudged_cells,
)
from training.recipes.config import Input, InputKind

NONE = np.zeros(0, np.int64)


def _telling(pack: Pack, wrong: np.ndarray | None = None) -> Embedded:
    """Features of unit length whose direction is the class, turned about where ``wrong``."""
    angle = np.where((pack.is_blast == 1) ^ (False if wrong is None else wrong), 0.3, 1.2) + np.random.default_rng(0).normal(0, 0.05, len(pack))
    return Embedded(pack, np.stack([np.cos(angle), np.sin(angle)], axis=1))


def _dataset(pack: Pack) -> Dataset:
    images = tuple(
        LabelledImage(Path(key), "all_idb2", key, (LYMPHOBLAST,), "", is_blast=int(b)) for key, b in zip(pack.keys, pack.is_blast, strict=True)
    )
    return Dataset("all_idb2", ImageKind.CELL, (LYMPHOBLAST,), GroupKind.NONE, images)


def test_the_nearest_neighbour_is_a_difference_of_distances() -> None:
    features = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 9.0], [3.0, 0.0], [10.0, 6.0]])
    margins = by_neighbour(features, np.array([0, 1, 0, 0, 1]), Split(np.arange(3), NONE, np.array([3, 4])))
    np.testing.assert_allclose(margins, [3.0 - 7.0, np.hypot(10, 3) - 6.0])


@pytest.mark.parametrize("scorer", [by_neighbour, by_regression])
def test_labels_of_test_rows_are_not_read(cells: Pack, scorer: frozen.Scorer) -> None:
    known = _telling(cells)
    split = Split(np.arange(0, 30), NONE, np.arange(30, len(cells)))
    margins = scorer(known.features, known.labels, split)
    assert margins.shape == split.test.shape
    np.testing.assert_array_equal(scorer(known.features, np.where(np.arange(len(cells)) < 30, known.labels, -1), split), margins)
    assert ((margins > 0) == (known.labels[30:] == 1)).all()


@pytest.mark.parametrize("scorer", [by_neighbour, by_regression])
def test_a_training_part_of_one_class_is_refused(scorer: frozen.Scorer) -> None:
    with pytest.raises(SplitError, match="normal"):
        scorer(np.eye(4), np.array([1, 1, 1, 0]), Split(np.arange(3), NONE, np.array([3])))


def test_the_papers_protocol_halves_both_classes(cells: Pack) -> None:
    labels = cells.is_blast.astype(np.int64)
    splits = papers_splits(labels, seed=3)
    assert len(splits) == 10
    assert len({tuple(s.test.tolist()) for s in splits}) == 10
    for split in splits:
        assert len(split.validation) == 0
        assert sorted([*split.train, *split.test]) == list(range(len(cells)))
        assert abs((labels[split.train] == 1).sum() - (labels[split.test] == 1).sum()) <= 1


def test_a_split_of_all_is_made_one_of_those_that_are_there() -> None:
    split = scored_part(Split(np.array([0, 2, 4]), NONE, np.array([1, 3, 5])), np.array([0, 1, 4, 5]))
    assert (split.train.tolist(), split.test.tolist()) == ([0, 2], [1, 3])


def test_papers_figures_count_what_was_not_located(cells: Pack) -> None:
    there = np.arange(len(cells)) % 9 != 0
    crops = _telling(cells).select(there)
    found = papers_figures(crops, _dataset(cells), np.char.startswith(crops.pack.folds, "canon"), by_neighbour)
    assert (found.crops, found.left_out) == (there.sum(), (~there).sum())
    assert found.accuracy == found.auc == found.canon_auc == 1.0
    assert found.accuracy_deviation == 0.0


def test_the_auc_of_the_canon_is_of_its_test_crops_alone(cells: Pack) -> None:
    canon = np.char.startswith(cells.folds, "canon")
    blind = _telling(cells)
    blind.features[canon] = [1.0, 0.0]
    found = papers_figures(blind, _dataset(cells), canon, by_neighbour)
    assert found.canon_auc == 0.5
    assert 0.5 < found.auc < 1.0
    assert 0.5 < found.accuracy < 1.0


def test_honest_figures_pool_what_each_protocol_tests(windows: Pack) -> None:
    found = {f.title: f for f in honest_figures(_telling(windows), by_regression, resamples=20)}
    assert {title: (f.blasts, f.normals) for title, f in found.items()} == {
        "Olympus, unseen session": (12, 6),
        "Canon, unseen fields of a known session": (15, 10),
        "Canon, the same and healthy fields": (15, 25),
        "learned on Olympus, Canon": (15, 10),
        "learned on Canon, Olympus": (12, 6),
    }
    assert all(f.auc.value == 1.0 for f in found.values())


def test_a_camera_that_is_the_other_way_round_is_seen_across_cameras_alone(windows: Pack) -> None:
    turned = _telling(windows, wrong=np.char.startswith(windows.folds, "olympus"))
    found = [f.auc.value for f in honest_figures(turned, by_neighbour, resamples=20)]
    assert found == [1.0, 1.0, 1.0, 0.0, 0.0]


def test_a_smudged_cell_is_judged_by_the_other_folds_of_its_camera(windows: Pack) -> None:
    smudged = windows.is_blast == -1
    olympus = np.char.startswith(windows.folds, "olympus")
    known = _telling(windows)
    known.features[smudged & olympus] = [np.cos(0.3), np.sin(0.3)]  # as blasts of either camera
    assert smudged_cells(known, by_neighbour) == SmudgedCells(8, 3)
    own = known.select(~smudged | (windows.folds == "canon-1"))
    near = (own.pack.folds == "canon-1") & (own.labels == 1)
    own.features[near] = own.features[own.labels == -1] = [-1.0, 0.0]  # like blasts of its own fold alone, which do not teach
    own.features[(own.labels == 0)] = [0.0, -1.0]
    own.features[(own.labels == 1) & ~near] = [0.1, 1.0]
    assert smudged_cells(own, by_neighbour) == SmudgedCells(1, 0)
    assert SmudgedCells(8, 3).share == 0.375


def test_a_linear_layer_is_judged_without_what_is_kept_back(cells: Pack) -> None:
    patients = np.array([f"P{i % 9}" for i in range(len(cells))])
    given = np.array([Subset.TRAIN, Subset.CALIBRATION, Subset.TEST])[np.arange(len(cells)) % 9 // 3]
    aml = _telling(replace(cells, groups=patients, subsets=given))
    kept_back = np.arange(len(cells)) % 5 == 0
    crops = _telling(replace(cells, subsets=np.where(kept_back, Subset.KEPT_BACK.value, "")), wrong=kept_back)
    canon = np.char.startswith(cells.folds, "canon")
    both, within, unseen = linear_layer_figures(aml, crops, canon, resamples=20)
    assert both.blasts + both.normals == (~kept_back).sum()
    assert within.blasts + within.normals == (~kept_back & canon).sum()
    assert unseen.blasts + unseen.normals == (given == Subset.TEST).sum()
    assert both.auc.value == within.auc.value == unseen.auc.value == 1.0


def test_the_ridge_is_chosen_by_calibration_patients_alone(cells: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ridge is told by its margins: of calibration patients 0.1 is right, of all others 1."""
    given = np.array([Subset.TRAIN, Subset.CALIBRATION, Subset.TEST])[np.arange(len(cells)) % 9 // 3]
    aml = _telling(replace(cells, subsets=given))
    calibrating = aml.select(aml.pack.in_subset(Subset.CALIBRATION))
    asked: list[float] = []

    def margins(train: np.ndarray, labels: np.ndarray, test: np.ndarray, ridge: float) -> np.ndarray:
        asked.append(ridge)
        right = ridge == (0.1 if np.array_equal(test, calibrating.features) else 1.0)
        return -test[:, 1] if right else test[:, 1]

    monkeypatch.setattr(frozen, "linear_margins", margins)
    linear_layer_figures(aml, _telling(cells), np.char.startswith(cells.folds, "canon"), resamples=5)
    assert asked == [*RIDGES, 0.1, 0.1, 0.1]


def test_embeddings_are_made_once_and_are_of_unit_length(tmp_path: Path) -> None:
    calls = []

    def embed(pixels: np.ndarray) -> np.ndarray:
        calls.append(len(pixels))
        return pixels.reshape(len(pixels), -1)[:, :5].astype(np.float32)

    pack = pack_of([("olympus-1", LYMPHOBLAST)] * 4)
    write_pack(pack, tmp_path / f"cells{SUFFIX}")
    sources = Sources({}, {"all_idb_cells": (tmp_path / f"cells{SUFFIX}",)}, tmp_path)
    embedder = Embedder("network", Input.model_construct(kind=InputKind.REGISTERED, side=8, center_crop=0, subject="cell"), None, "0" * 64, embed)
    first, again = (embedded(embedder, sources, "all_idb_cells", tmp_path / "cache") for _ in range(2))
    assert calls == [4]
    np.testing.assert_array_equal(first.features, again.features)
    np.testing.assert_allclose(np.linalg.norm(first.features, axis=1), 1.0, rtol=1e-6)
    embedded(replace(embedder, checksum="1" * 64), sources, "all_idb_cells", tmp_path / "cache")
    assert calls == [4, 4]
    write_pack(replace(pack, pixels=pack.pixels // 2), tmp_path / f"cells{SUFFIX}")
    embedded(embedder, sources, "all_idb_cells", tmp_path / "cache")
    assert calls == [4, 4, 4]
    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_a_damaged_cache_is_refused(tmp_path: Path) -> None:
    pack = pack_of([("olympus-1", LYMPHOBLAST)] * 4)
    write_pack(pack, tmp_path / f"cells{SUFFIX}")
    sources = Sources({}, {"all_idb_cells": (tmp_path / f"cells{SUFFIX}",)}, tmp_path)
    wanted = Input.model_construct(kind=InputKind.REGISTERED, side=8, center_crop=0, subject="cell")
    embedder = Embedder("network", wanted, None, "0" * 64, lambda pixels: np.ones((len(pixels), 3), np.float32))
    embedded(embedder, sources, "all_idb_cells", tmp_path / "cache")
    (path,) = (tmp_path / "cache").iterdir()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ArrayFileError):
        embedded(embedder, sources, "all_idb_cells", tmp_path / "cache")


def test_figures_can_be_kept_as_json(windows: Pack, cells: Pack) -> None:
    papers = papers_figures(_telling(cells), _dataset(cells), np.char.startswith(cells.folds, "canon"), by_neighbour)
    honest = honest_figures(_telling(windows), by_neighbour, resamples=5)
    row = FrozenRow("network", "nearest neighbour", papers, honest, smudged_cells(_telling(windows), by_neighbour), 1, 2, 3)
    kept = json.loads(json.dumps(asdict(FrozenFigures((row,), honest, ("patches",)))))
    assert kept["rows"][0]["honest"][0]["auc"]["value"] == 1.0
    assert kept["rows"][0]["smudged"]["cells"] == 8
