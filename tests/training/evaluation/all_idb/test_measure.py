"""Tests of measuring the papers' experiments on ALL-IDB, with predictions made by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from services.retrieval.neighbours import legacy_vote, unit
from services.retrieval.search import ExactSearch
from tests.training.evaluation.all_idb.conftest import pack_of
from tests.training.tiny_all_idb import tiny_benchmark, write_patches_of
from training.crops.packs import Pack
from training.datasets.all_idb_fields import LYMPHOBLAST
from training.datasets.splits import Split
from training.errors import ArrayFileError
from training.evaluation.all_idb import measure
from training.evaluation.all_idb.confounders import CAMERA, COLOURS, SIZE, canon_crops, under_split
from training.evaluation.all_idb.data import BenchmarkData
from training.evaluation.all_idb.measure import NEIGHBOURS, Result, mean_and_deviation, measure_row, scored
from training.evaluation.all_idb.published import options_of, scored_pack, sources_of, splits_of
from training.evaluation.all_idb.rows import ROWS, Row
from training.learning.devices import Worker
from training.metrics.multi_label import global_threshold, label_accuracy, sample_jaccard
from training.runs.folder import Predictions
from training.runs.patches import PatchPredictions

pytestmark = pytest.mark.slow

CPU = Worker(torch.device("cpu"))
NONE = np.zeros(0, np.int64)
CELLS = Row(
    "cells",
    "system 2",
    "2 x 40/10/50",
    "histotnet",
    ("pretraining.enabled=false", "split.repetitions=2", 'fine_tuning.input={ kind = "center_crop", center_crop = 256, side = 32 }'),
    ("fine_tuning.epochs=1",),
    "epochs",
)
_PATCHES = ("pretraining.enabled=false", 'fine_tuning.input={ kind = "center_crop", center_crop = 256, side = 32 }')
PATCHES = Row("patches", "system 4", "5 folds", "all_idb_patches", _PATCHES)
FIELDS = Row("fields", "system 4", "by field", "all_idb_patches", (*_PATCHES, "split.by=group", "fine_tuning.selection=last"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BenchmarkData]:
    with tiny_benchmark(tmp_path_factory.mktemp("tiny")) as found:
        rows = [(f"Im{number:03d}_{number % 2}", int(number % 2 and k < 4), k % 2) for number in range(26, 44) for k in range(6)]
        write_patches_of(found, rows)
        yield found


def _splits(row: Row, data: BenchmarkData, runs: Path, *, full: bool = True) -> tuple[Pack, Mapping[str, Split], Path]:
    options = options_of(row, data, runs, 0, full=full)
    pack = scored_pack(row, options, sources_of(row, data), CPU)
    return pack, splits_of(row, options, pack), options.runs / options.name


def _say(path: Path, pack: Pack, chosen: np.ndarray, margins: np.ndarray, part: list[str]) -> None:
    logits = np.stack([np.zeros(len(chosen)), margins], axis=1).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    Predictions(pack.keys[chosen], pack.groups[chosen], pack.is_blast[chosen], logits, np.array(part)).save(path)


def _require_same(found: Sequence[Result], wanted: Sequence[Result]) -> None:
    np.testing.assert_equal([asdict(result) for result in found], [asdict(result) for result in wanted])


def test_figures_of_margins_made_by_hand() -> None:
    margins = np.array([2.0, -1.0, 0.5, -3.0, 0.0])
    labels, canon = np.array([1, 1, 0, 0, 0]), np.array([False, True, True, True, False])
    found = scored(margins, labels, canon)
    assert found.accuracy == pytest.approx(3 / 5)  # 0 is a normal cell
    assert found.auc == pytest.approx(4 / 6)
    assert found.canon_accuracy == pytest.approx(1 / 3)
    assert found.canon_auc == pytest.approx(1 / 2)
    assert (found.blasts, found.normals, found.canon_blasts, found.canon_normals) == (2, 3, 1, 2)


def test_nothing_is_said_of_a_camera_that_took_nothing_or_one_class() -> None:
    margins, labels = np.array([1.0, -1.0]), np.array([1, 0])
    without = scored(margins, labels, np.zeros(2, np.bool_))
    assert (without.accuracy, without.auc) == (1.0, 1.0)
    assert np.isnan([without.canon_accuracy, without.canon_auc]).all()
    assert (without.canon_blasts, without.canon_normals) == (0, 0)
    healthy = scored(margins, labels, np.array([False, True]))
    assert healthy.canon_accuracy == 1.0
    assert np.isnan(healthy.canon_auc)


def test_the_mean_and_deviation_are_the_papers() -> None:
    mean, deviation = mean_and_deviation([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert deviation == pytest.approx((2 / 3) ** 0.5)


def test_the_repaired_vote_follows_the_nearest_where_the_published_one_follows_the_farthest() -> None:
    angles = np.array([0.0, 0.4, 0.8, 2.0, 2.1, 2.2])
    gallery = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    classes = np.array([1, 0, 2, 0, 0, 1])
    queries = unit(np.array([[np.cos(0.05), np.sin(0.05)], [np.cos(2.04), np.sin(2.04)]], np.float32))
    indices, _ = ExactSearch(gallery).nearest(queries, NEIGHBOURS)
    assert legacy_vote(classes[indices]).tolist() == [2, 0], "three classes: the farthest wins"
    assert measure._repaired_vote(gallery, classes, queries).tolist() == [1, 0]


def test_a_class_that_is_rarely_near_is_elected_where_it_is_the_nearest_by_far() -> None:
    gallery = np.array([[1.0, 0.0], [0.0, 1.0], [0.05, 0.9987]], np.float32)
    assert measure._repaired_vote(gallery, np.array([2, 0, 0]), gallery[:1]).tolist() == [2]


def test_a_vote_is_of_the_training_crops_and_those_without_a_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    """The nearest of a blast is a blast, then a normal cell, then nothing: the published vote says nothing."""
    (row,) = [row for row in ROWS if row.recipe == "dss"]
    grey = {"target": [100, 120, 105, 250, 101], "nothing": [140]}
    kinds = [LYMPHOBLAST, "lymphocyte", LYMPHOBLAST, "lymphocyte", "lymphocyte"]
    target, nothing = pack_of([("olympus-1", kind) for kind in kinds]), pack_of([("olympus-2", "smudged")])
    target, nothing = (
        replace(pack, pixels=np.stack([np.full((8, 8, 3), value, np.uint8) for value in grey[name]]))
        for name, pack in (("target", target), ("nothing", nothing))
    )
    augmented: list[np.ndarray] = []

    def outputs(network: object, pixels: np.ndarray, *_: object) -> Iterator[SimpleNamespace]:
        values = pixels.mean(axis=(1, 2, 3))
        direction = np.stack([np.cos(values / 100), np.sin(values / 100)], axis=1)
        yield SimpleNamespace(logits=values[:, None].astype(np.float32), embedding=direction.astype(np.float32))

    def augment(pixels: np.ndarray, *_: object) -> np.ndarray:
        augmented.append(pixels)
        return pixels

    monkeypatch.setattr(measure, "dss_crops", lambda *_: (target, nothing))
    monkeypatch.setattr(measure, "load_trained", lambda _: SimpleNamespace(network=None, normaliser=None))
    monkeypatch.setattr(measure, "outputs_of", outputs)
    monkeypatch.setattr(measure, "augment", augment)
    options: Any = SimpleNamespace(recipe=row.load(full=True), seed=0)
    anywhere: Any = SimpleNamespace(official_crops=lambda: None)
    parts = {"a": Split(np.array([0, 1]), np.array([4]), np.array([2])), "b": Split(np.array([0, 1]), NONE, np.array([2, 3]))}
    votes = measure._votes(options, Path(), parts, anywhere, CPU)
    assert votes == {"vote by logits, as published": (0.0, 0.0), "vote by embeddings, repaired": (1.0, 0.5)}
    assert [pixels[:, 0, 0, 0].tolist() for pixels in augmented] == [[100, 120, 140]] * 2


def test_a_row_of_cells_is_measured_by_key(data: BenchmarkData, tmp_path: Path) -> None:
    """Predictions are stored in another order than the split, and every margin is of one cell alone."""
    pack, splits, folder = _splits(CELLS, data, tmp_path, full=False)
    assert folder == tmp_path / "cells-short"
    canon, labels = canon_crops(pack, data.fields), pack.is_blast.astype(np.int64)
    assert canon.any()
    assert not canon.all()
    generator = np.random.default_rng(0)
    wanted = []
    for name, split in splits.items():
        margins = generator.normal(0, 1, len(pack))
        chosen = generator.permutation(np.concatenate([split.validation, split.test]))
        part = ["validation" if i in split.validation else "test" for i in chosen]
        _say(folder / name / "predictions.safetensors", pack, chosen, margins[chosen].astype(np.float32), part)
        wanted.append(scored(margins[split.test].astype(np.float32).astype(np.float64), labels[split.test], canon[split.test]))
    found = measure_row(CELLS, data, tmp_path, CPU, full=False)
    assert (found.name, found.full) == ("cells", False)
    _require_same(found.network, wanted)
    assert not found.further
    assert set(found.baselines) == {CAMERA, COLOURS, SIZE}
    for results in found.baselines.values():
        assert [(r.blasts, r.normals, r.canon_blasts, r.canon_normals) for r in results] == [
            (r.blasts, r.normals, r.canon_blasts, r.canon_normals) for r in wanted
        ]
    camera = canon[:, None].astype(np.float64)
    by_camera = [scored(under_split(camera, labels, s), labels[s.test], canon[s.test]) for s in splits.values()]
    _require_same(found.baselines[CAMERA], by_camera)
    assert [r.auc for r in found.baselines[SIZE]] == [1.0, 1.0], "drawn blasts are larger"
    assert all(np.isnan(r.canon_auc) or r.canon_auc == 0.5 for r in found.baselines[CAMERA])


def test_a_row_that_is_not_finished_is_told(data: BenchmarkData, tmp_path: Path) -> None:
    pack, splits, folder = _splits(CELLS, data, tmp_path)
    split = splits["repetition-0"]
    _say(folder / "repetition-0" / "predictions.safetensors", pack, split.test, np.zeros(len(split.test)), ["test"] * len(split.test))
    with pytest.raises((ArrayFileError, OSError), match="repetition-1"):
        measure_row(CELLS, data, tmp_path, CPU, full=True)


def _say_patches(row: Row, data: BenchmarkData, runs: Path) -> tuple[Pack, Split, np.ndarray]:
    """Predictions in another order than the split; returns the logits of all patches."""
    pack, splits, folder = _splits(row, data, runs)
    (split,) = splits.values()
    generator = np.random.default_rng(4)
    logits = (generator.normal(0, 1, (len(pack), 2)) + 2.0 * pack.labels - 2.2).astype(np.float32)
    chosen = generator.permutation(np.concatenate([split.validation, split.test]))
    part = np.array(["validation" if i in split.validation else "test" for i in chosen])
    (folder / "final").mkdir(parents=True)
    said = PatchPredictions(pack.keys[chosen], pack.groups[chosen], pack.labels[chosen], logits[chosen], part)
    said.save(folder / "final" / "predictions.safetensors")
    return pack, split, 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))


def _patch_result(pack: Pack, chosen: np.ndarray, probabilities: np.ndarray, threshold: float) -> Result:
    canon = np.array([int(group[2:5]) > 33 for group in pack.groups[chosen]])
    return scored(probabilities[chosen, 0] - threshold, pack.labels[chosen, 0].astype(np.int64), canon)


def test_patches_are_tested_with_the_threshold_of_the_validation_patches(data: BenchmarkData, tmp_path: Path) -> None:
    pack, split, probabilities = _say_patches(PATCHES, data, tmp_path)
    assert len(split.test)
    threshold = global_threshold(probabilities[split.validation], pack.labels[split.validation] > 0)
    wanted = _patch_result(pack, split.test, probabilities, threshold)
    assert wanted.accuracy != _patch_result(pack, split.test, probabilities, 0.5).accuracy
    found = measure_row(PATCHES, data, tmp_path, CPU, full=True)
    _require_same(found.network, [wanted])
    labels = pack.labels[split.test] > 0
    assert found.further == {
        "label accuracy": (label_accuracy(probabilities[split.test] >= threshold, labels),),
        "Jaccard by sample": (pytest.approx(sample_jaccard(probabilities[split.test] >= threshold, labels)),),
    }
    assert set(found.baselines) == {CAMERA, COLOURS}
    assert found.baselines[COLOURS][0].auc == 1.0, "patches with a blast are darker"
    assert (found.baselines[COLOURS][0].blasts, found.baselines[COLOURS][0].normals) == (wanted.blasts, wanted.normals)


def test_patches_that_are_split_by_field_are_judged_without_a_tuned_threshold(data: BenchmarkData, tmp_path: Path) -> None:
    pack, split, probabilities = _say_patches(FIELDS, data, tmp_path)
    assert not len(split.test)
    assert not set(pack.groups[split.train]) & set(pack.groups[split.validation])
    found = measure_row(FIELDS, data, tmp_path, CPU, full=True)
    wanted = _patch_result(pack, split.validation, probabilities, 0.5)
    assert wanted.accuracy != _patch_result(pack, split.validation, probabilities, 0.05).accuracy
    _require_same(found.network, [wanted])
    assert found.baselines[COLOURS][0].auc == 1.0
