"""Tests of training on patches with two independent labels, on small packs and on ALL-IDB Patches in its published layout."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from services.common.cell_classes import PATCH_LABELS
from tests.training.small import cell_pack, patch_pack, tissue_pack, write_patch_recipe
from training.crops.packs import write_pack
from training.crops.sources import Sources
from training.datasets.all_idb_patches import write_patches
from training.datasets.dataset import Subset
from training.errors import ArrayFileError, DatasetError, RecipeError, SplitError
from training.learning.checkpoints import load_network
from training.learning.devices import Worker
from training.recipes.config import load_recipe
from training.runs.folder import Predictions, TransferOptions, load_trained
from training.runs.patches import PatchPredictions, run, splits, write_patch_report

pytestmark = pytest.mark.slow

CPU = Worker(torch.device("cpu"))


def _options(folder: Path, *changes: str, folds: int = 0, name: str = "run") -> TransferOptions:
    return TransferOptions(load_recipe(str(write_patch_recipe(folder)), "grouped", changes), "", "", 0, folds, folder / "runs", name)


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    write_pack(patch_pack(), tmp_path / "composed.pack")
    return Sources.find([tmp_path / "composed.pack"], tmp_path / "cache")


def test_two_labels_are_learned_apart_and_reported(tmp_path: Path, sources: Sources) -> None:
    folder = run(_options(tmp_path), sources, CPU)
    said = PatchPredictions.load(folder / "final" / "predictions.safetensors")
    pack = patch_pack()
    assert sorted(said.keys) == sorted(pack.keys[pack.in_subset(Subset.CALIBRATION)])
    assert ((said.probabilities > 0.5) == (said.labels > 0)).mean() > 0.9
    lines = write_patch_report(folder)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["final, validation, label accuracy"] > 0.9
    assert 0.05 <= summary["final, threshold"] <= 0.95
    assert {f"final, validation, AUC of {name} present" for name in PATCH_LABELS} < set(summary)
    assert len(lines) == len(summary) + 1
    assert (folder / "curves.svg").is_file()


def test_a_finished_run_is_not_trained_again_and_the_same_seed_trains_the_same(tmp_path: Path, sources: Sources) -> None:
    path = run(_options(tmp_path, "fine_tuning.epochs=1"), sources, CPU) / "final" / "network.safetensors"
    before = path.stat().st_mtime_ns
    run(_options(tmp_path, "fine_tuning.epochs=1"), sources, CPU)
    assert path.stat().st_mtime_ns == before
    again = run(_options(tmp_path, "fine_tuning.epochs=1", name="again"), sources, CPU) / "final" / "network.safetensors"
    first, second = load_network(path)[0], load_network(again)[0]
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_warm_up_moves_the_heads_alone(tmp_path: Path, sources: Sources) -> None:
    """Heads that are not warmed up begin where they were drawn; nothing else may differ after a step without a rate."""
    still = ("fine_tuning.optimiser.rate=1e-12", "fine_tuning.epochs=1", "fine_tuning.orthogonality_weight=0.0")
    warm = load_trained(run(_options(tmp_path, *still, "warm_up.optimiser.rate=0.1", name="warm"), sources, CPU) / "final").network
    cold = load_trained(run(_options(tmp_path, *still, "warm_up.optimiser.rate=1e-12", name="cold"), sources, CPU) / "final").network
    moved = {n for (n, a), (_, b) in zip(warm.named_parameters(), cold.named_parameters(), strict=True) if not torch.allclose(a, b, atol=1e-6)}
    assert moved
    assert all(name.startswith("heads.") for name in moved)


def test_what_makes_no_sense_is_refused(tmp_path: Path, sources: Sources) -> None:
    with pytest.raises(RecipeError, match="patch_cross_validation"):
        run(_options(tmp_path, folds=3), sources, CPU)
    write_pack(cell_pack(), tmp_path / "cells.pack")
    with pytest.raises(DatasetError, match="No data set for the target"):
        run(_options(tmp_path), Sources.find([tmp_path / "cells.pack"], tmp_path / "cache"), CPU)
    other = replace(patch_pack(), labels=np.ones((108, 3), np.int8))
    write_pack(replace(other, header=replace(other.header, classes=("a", "b", "c"))), tmp_path / "three.pack")
    with pytest.raises(DatasetError, match="no patches with two labels"):
        run(_options(tmp_path), Sources.find([tmp_path / "three.pack"], tmp_path / "cache"), CPU)


def test_a_patient_on_both_sides_is_refused() -> None:
    pack = patch_pack()
    recipe = load_recipe("all_idb_patches")
    with pytest.raises(SplitError, match="leaks"):
        splits(replace(pack, groups=np.where(pack.groups == "P02", "P00", pack.groups)), recipe, 0)


def test_groups_without_subsets_are_given_some() -> None:
    pack = patch_pack()
    unassigned = replace(pack, subsets=np.array([""] * len(pack)))
    split = splits(unassigned, load_recipe("all_idb_patches"), 0)["final"]
    assert len(split.validation) == 4 * 6
    assert len(split.test) == 0
    assert len(split.train) == len(pack) - 8 * 6


def test_the_papers_folds_part_patches_of_a_patient() -> None:
    pack = patch_pack()
    recipe = load_recipe("all_idb_patches", "published")
    split = splits(pack, recipe, 0)["final"]
    assert len(split.train) + len(split.validation) + len(split.test) == len(pack)
    assert set(pack.groups[split.train]) & set(pack.groups[split.test])
    changed = load_recipe("all_idb_patches", "published", ["split.by=image", "split.repetitions=2"])
    assert list(splits(pack, changed, 0)) == ["repetition-0", "repetition-1"]


def test_predictions_of_cells_are_none_of_patches(tmp_path: Path) -> None:
    words = np.array(["a"])
    Predictions(words, words, np.ones(1, np.int8), np.zeros((1, 2), np.float32), words).save(tmp_path / "p.safetensors")
    with pytest.raises(ArrayFileError, match="no predictions of patches"):
        PatchPredictions.load(tmp_path / "p.safetensors")


def _all_idb1(root: Path) -> Path:
    """Fields in the layout of ALL-IDB1: dark discs are blasts, pale ones other cells."""
    generator = np.random.default_rng(0)
    for folder in ("im", "xyc", "other"):
        (root / folder).mkdir(parents=True)
    rows, columns = np.mgrid[:460, :460]
    corners = [(60, 60), (400, 60), (60, 400), (400, 400)]
    for number in range(8):
        name = f"Im{number + 1:03d}_{int(number % 4 > 0)}"
        pixels = np.full((460, 460, 3), 220, np.uint8)
        for folder, shade, points in (("xyc", 60, corners[: number % 4]), ("other", 140, [corners[number % 3 + 1]])):
            for x, y in points:
                pixels[np.hypot(rows - y, columns - x) < 30] = shade
            (root / folder / f"{name}.xyc").write_text("".join(f"{x} {y}\n" for x, y in points), encoding="ascii")
        noisy = np.clip(pixels + generator.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(root / "im" / f"{name}.jpg", quality=95)
    return root


def test_the_published_preset_trains_on_the_published_layout(tmp_path: Path) -> None:
    """All stages of the published preset, narrow and short: pretraining with orthogonality, warm-up, fine-tuning, folds, threshold."""
    write_patches(_all_idb1(tmp_path / "all_idb1"), tmp_path / "all_idb_patches")
    write_pack(tissue_pack(), tmp_path / "tissue.pack")
    small = [f"{s}.{k}" for s in ("pretraining", "warm_up", "fine_tuning") for k in ("epochs=1", "batch=4", "input.side=32")]
    changes = [*small, "pretraining.input.center_crop=0", "network.width=8"]
    recipe = load_recipe("all_idb_patches", "published", changes)
    sources = Sources.find([tmp_path / "all_idb_patches", tmp_path / "tissue.pack"], tmp_path / "cache")
    folder = run(TransferOptions(recipe, "", "", 0, 0, tmp_path / "runs", "published"), sources, CPU)
    said = PatchPredictions.load(folder / "final" / "predictions.safetensors")
    assert set(said.part) == {"validation", "test"}
    assert load_trained(folder / "final").about["source"] == "lc25000_tiles"
    assert any(line.startswith("final, test, Jaccard by sample") for line in write_patch_report(folder))
