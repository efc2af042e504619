"""Tests of training the papers' experiments on ALL-IDB, on a tiny copy of the data and with tiny networks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from services.preprocessing.focus import MAX_SCORE
from tests.training.evaluation.all_idb.conftest import pack_of
from tests.training.tiny_all_idb import tiny_benchmark, write_patches_of
from training.crops import threshold_tuning
from training.crops.packs import Pack
from training.datasets.all_idb_fields import LYMPHOBLAST
from training.errors import DatasetError
from training.evaluation.all_idb import published
from training.evaluation.all_idb.data import BenchmarkData
from training.evaluation.all_idb.measure import measure_row
from training.evaluation.all_idb.published import (
    DSS_THRESHOLD,
    SHARPENING_SIDE,
    dss_crops,
    half_threshold,
    legacy_crops,
    options_of,
    reduced,
    sources_of,
    splits_of,
    train_row,
)
from training.evaluation.all_idb.rows import ROWS, Row
from training.learning.checkpoints import load_network
from training.learning.devices import Worker
from training.runs import fitting, transfer
from training.runs.folder import SPLIT, Predictions, load_trained, split_digest

pytestmark = pytest.mark.slow

CPU = Worker(torch.device("cpu"))
SHARPENED_INPUT = '{ kind = "legacy_sharpened", side = 32, threshold = "tuned_legacy" }'
HALVES = Row(
    "halves",
    "system 1",
    "2 random halves",
    "adaptive_unsharpening",
    ("network.width=8", "split.repetitions=2"),
    (f"fine_tuning.input={SHARPENED_INPUT}", "fine_tuning.epochs=1", "fine_tuning.batch=5"),
    "32 px",
    sharpens=True,
)
ORIGINAL = replace(HALVES, name="original", sharpens=False)
DSS = Row(
    "dss",
    "system 6",
    "5 folds",
    "dss",
    (
        "network.width=8",
        "pretraining.enabled=false",
        "injection.clusters=1",
        f"warm_up.input={SHARPENED_INPUT}",
        "warm_up.epochs=1",
        f"fine_tuning.input={SHARPENED_INPUT}",
        "fine_tuning.epochs=1",
        "fine_tuning.batch=6",
    ),
)
WINDOW = Row(
    "window",
    "system 2",
    "40/10/50",
    "histotnet",
    (
        "network.width=8",
        "pretraining.enabled=false",
        "split.repetitions=1",
        'fine_tuning.input={ kind = "center_crop", center_crop = 256, side = 32 }',
        "fine_tuning.epochs=1",
    ),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BenchmarkData]:
    with tiny_benchmark(tmp_path_factory.mktemp("tiny")) as found:
        write_patches_of(found, [(f"Im{60 + i:03d}_0", 0, 0) for i in range(7)] + [("Im001_1", 1, 0), ("Im002_1", 0, 1), ("Im004_1", 1, 1)])
        yield found


def _named(name: str) -> Row:
    (row,) = [row for row in ROWS if row.name == name]
    return row


def _told_threshold(crops: Pack, training: np.ndarray) -> float:
    """A threshold that differs from half to half."""
    return round(6.0 + 0.01 * float(training.mean()), 4)


@pytest.fixture(scope="module")
def both_arms(data: BenchmarkData, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[np.ndarray]]:
    """The runs of both arms of system 1, and the halves by which thresholds were chosen."""
    runs, asked = tmp_path_factory.mktemp("runs"), []

    def told(crops: Pack, training: np.ndarray) -> float:
        asked.append(training)
        return _told_threshold(crops, training)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(published, "half_threshold", told)
        for row in (HALVES, ORIGINAL):
            train_row(row, data, runs, CPU, full=False)
    return runs, asked


def test_the_short_form_has_a_folder_of_its_own(data: BenchmarkData) -> None:
    for row in ROWS:
        full, short = (options_of(row, data, Path("runs"), 3, full=form) for form in (True, False))
        assert full.name == row.name
        assert short.name == (f"{row.name}-short" if row.cuts else row.name)
        assert (full.recipe, short.recipe) == (row.load(full=True), row.load(full=False))
        assert (full.checkpoint is not None) == row.needs_checkpoint
        assert (full.seed, full.source, full.folds) == (3, row.source, 0)
    assert options_of(ROWS[0], data, Path("runs"), 0, full=False).checkpoint == data.checkpoint


def test_a_row_that_learns_tissue_asks_for_it(data: BenchmarkData) -> None:
    assert set(sources_of(_named("s2-lite0-scratch"), data).folders) == {"all_idb2"}
    for name in ("s2-lite0-tissue", "s4-fields", "s5-regular"):
        with pytest.raises(DatasetError, match="lc25000_tiles is missing"):
            sources_of(_named(name), data)


def test_reduced_crops_are_antialiased_and_say_their_side() -> None:
    pack = pack_of([("olympus-1", LYMPHOBLAST), ("olympus-2", "lymphocyte")])
    rows, columns = np.indices((8, 8))
    board = np.where((rows + columns) % 2, 200, 100).astype(np.uint8)
    pixels = np.stack([np.repeat(board[..., None], 3, axis=2), np.full((8, 8, 3), 7, np.uint8)])
    small = reduced(replace(pack, pixels=pixels), 4)
    assert small.header.side == 4
    assert small.pixels.dtype == np.uint8
    assert (small.pixels[0] == 150).all(), "each pixel is the mean of four"
    assert (small.pixels[1] == 7).all()
    np.testing.assert_array_equal(small.keys, pack.keys)
    np.testing.assert_array_equal(small.labels, pack.labels)
    assert small.digest() != pack.digest()


def test_crops_are_sharpened_until_the_threshold(data: BenchmarkData) -> None:
    sources = data.official_crops()
    plain, sharpened = legacy_crops(sources, MAX_SCORE), legacy_crops(sources, DSS_THRESHOLD)
    assert len(plain) == 19, "every drawn cell is found"
    assert plain.pixels.shape[1:] == (SHARPENING_SIDE, SHARPENING_SIDE, 3)
    np.testing.assert_array_equal(plain.measures["focus_before"], plain.measures["focus_after"])
    blurred = plain.measures["focus_before"] > DSS_THRESHOLD
    assert blurred.any()
    changed = (plain.pixels != sharpened.pixels).any(axis=(1, 2, 3))
    np.testing.assert_array_equal(changed, blurred)
    np.testing.assert_array_equal(plain.keys, sharpened.keys)


def test_a_threshold_is_chosen_on_the_training_half_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tuning is the real one with small features; the half is asked for crops, labels and neighbours of its own."""
    monkeypatch.setattr(threshold_tuning, "FEATURE_SIDE", 46)
    pack = pack_of([("olympus-1", LYMPHOBLAST), ("olympus-2", "lymphocyte")] * 4)
    generator = np.random.default_rng(1)
    pack = replace(pack, pixels=generator.integers(0, 256, (8, 48, 48, 3)).astype(np.uint8))
    training = np.array([0, 3, 4, 5])
    chosen = half_threshold(pack, training)
    pixels, is_blast = pack.pixels.copy(), pack.is_blast.copy()
    pixels[[1, 2, 6, 7]], is_blast[[1, 2, 6, 7]] = 0, 1
    assert half_threshold(replace(pack, pixels=pixels, is_blast=is_blast), training) == chosen
    seen: dict[str, Any] = {}

    def tune(crops: list[np.ndarray], labels: np.ndarray, groups: np.ndarray, *, legacy: bool) -> threshold_tuning.Tuning:
        seen.update(crops=np.stack(crops), labels=labels, groups=groups, legacy=legacy)
        return threshold_tuning.Tuning({}, {}, 7.7)

    monkeypatch.setattr(published, "tune_threshold", tune)
    assert half_threshold(pack, training) == 7.7
    np.testing.assert_array_equal(seen["crops"], pack.pixels[training])
    np.testing.assert_array_equal(seen["labels"], [1, 0, 1, 0])
    assert len(set(seen["groups"].tolist())) == 4, "each crop may be the neighbour of any other"
    assert seen["legacy"] is True


def test_both_arms_learn_from_the_same_halves(data: BenchmarkData, both_arms: tuple[Path, list[np.ndarray]]) -> None:
    runs, asked = both_arms
    plain = legacy_crops(data.official_crops(), MAX_SCORE)
    splits = splits_of(HALVES, options_of(HALVES, data, runs, 0, full=False), plain)
    assert list(splits) == ["repetition-0", "repetition-1"]
    assert [half.tolist() for half in asked] == [split.train.tolist() for split in splits.values()], "the arm without sharpening asks for none"
    for name, split in splits.items():
        sharpened, original = (load_trained(runs / f"{row.name}-short" / name) for row in (HALVES, ORIGINAL))
        assert sharpened.about[SPLIT] == original.about[SPLIT] == split_digest(plain, split)
        assert sharpened.about["threshold"] == _told_threshold(plain, split.train)
        assert original.about["threshold"] == MAX_SCORE
        weights, others = sharpened.network.state_dict(), original.network.state_dict()
        assert any(not torch.equal(weights[n], others[n]) for n in weights), "the crops of one arm are sharpened"
        for row in (HALVES, ORIGINAL):
            said = Predictions.load(runs / f"{row.name}-short" / name / "predictions.safetensors")
            assert sorted(said.keys.tolist()) == sorted(plain.keys[split.test].tolist())
            assert set(said.part) == {"test"}


def test_thresholds_of_a_sharpened_row_are_told(data: BenchmarkData, both_arms: tuple[Path, list[np.ndarray]]) -> None:
    runs, asked = both_arms
    figures = measure_row(HALVES, data, runs, CPU, full=False)
    plain = legacy_crops(data.official_crops(), MAX_SCORE)
    assert figures.further == {"focus threshold": tuple(_told_threshold(plain, half) for half in asked)}
    assert not measure_row(ORIGINAL, data, runs, CPU, full=False).further


def test_a_stopped_row_goes_on_and_a_finished_part_is_not_trained_again(
    data: BenchmarkData, both_arms: tuple[Path, list[np.ndarray]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[np.ndarray] = []
    begun: list[str] = []
    stopped = True
    fit_part = transfer.fit_part

    def told(crops: Pack, training: np.ndarray) -> float:
        asked.append(training)
        return _told_threshold(crops, training)

    def stopping(*given: Any) -> None:
        if stopped and given[6]["part"] == "repetition-1":
            raise KeyboardInterrupt
        fit_part(*given)

    def counted(*given: Any) -> Any:
        begun.append(given[3].folder.name)
        return fitting.fit(*given)

    monkeypatch.setattr(published, "half_threshold", told)
    monkeypatch.setattr(transfer, "fit_part", stopping)
    monkeypatch.setattr(transfer, "fit", counted)
    with pytest.raises(KeyboardInterrupt):
        train_row(HALVES, data, tmp_path, CPU, full=False)
    assert begun == ["repetition-0"]
    stopped = False
    folder = train_row(HALVES, data, tmp_path, CPU, full=False)
    assert begun == ["repetition-0", "repetition-1"]
    assert len(asked) == 2, "a threshold that was chosen is kept"
    train_row(HALVES, data, tmp_path, CPU, full=False)
    assert len(begun) == 2
    assert len(asked) == 2
    for name in ("repetition-0", "repetition-1"):
        weights, whole = (load_network(f / name / "network.safetensors")[0] for f in (folder, both_arms[0] / "halves-short"))
        for key, tensor in whole.items():
            torch.testing.assert_close(weights[key], tensor)


def test_crops_without_a_cell_are_learned_and_not_tested(data: BenchmarkData, tmp_path: Path) -> None:
    target, nothing = dss_crops(DSS.load(full=True), data.official_crops(), data)
    assert target.header.side == nothing.header.side == 32
    assert len(nothing) == 7
    assert set(nothing.groups.tolist()) == {f"Im{60 + i:03d}_0" for i in range(7)}
    folder = train_row(DSS, data, tmp_path, CPU, seed=3, full=True)
    assert folder == tmp_path / "dss"
    tested: list[str] = []
    splits = splits_of(DSS, options_of(DSS, data, tmp_path, 3, full=True), target)
    assert len(splits) == 5
    for name, split in splits.items():
        said = Predictions.load(folder / name / "predictions.safetensors")
        tested += said.keys[said.part == "test"].tolist()
        assert said.logits.shape == (len(said.keys), 3)
        about = load_trained(folder / name).about
        assert about["threshold"] == 7.1
        assert about["nothing_digest"] == nothing.digest()
        assert about[SPLIT] == split_digest(target, split)
    assert sorted(tested) == sorted(target.keys.tolist())
    figures = measure_row(DSS, data, tmp_path, CPU, seed=3, full=True)
    assert {name: len(values) for name, values in figures.further.items()} == {"vote by logits, as published": 5, "vote by embeddings, repaired": 5}
    assert all(0 <= value <= 1 for values in figures.further.values() for value in values)


def test_any_other_row_is_trained_as_its_recipe_says(data: BenchmarkData, tmp_path: Path) -> None:
    folder = train_row(WINDOW, data, tmp_path, CPU, seed=5, full=True)
    assert folder == tmp_path / "window"
    said = Predictions.load(folder / "repetition-0" / "predictions.safetensors")
    assert set(said.part) == {"validation", "test"}
    assert load_trained(folder / "repetition-0").about["seed"] == 5
