"""Tests of runs that learn tissue and cells at once, from end to end, on small packs."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.paths import ROOT
from tests.training.small import SIDE, cell_pack, tissue_pack, write_interleaved_recipe, write_packs
from tests.training.small_release import other_source_pack
from training.architectures.network import HEAD
from training.crops.packs import Pack, write_pack
from training.crops.sources import Sources
from training.datasets.dataset import GroupKind, Subset
from training.datasets.splits import greedy_folds
from training.errors import DatasetError, RecipeError
from training.learning.checkpoints import load_network
from training.learning.devices import Worker
from training.metrics.by_patient import auc
from training.recipes.config import Input, InputKind, Interleaving, Variant, load_recipe
from training.releases.build import BuildOptions, build
from training.releases.verify import check_releases
from training.runs.arms import read_arm
from training.runs.folder import Predictions, TransferOptions, load_trained
from training.runs.interleaved import group_labels, run, source_samples, source_split
from training.runs.report import write_report
from training.runs.transfer import run as run_alone

pytestmark = pytest.mark.slow

CPU = Worker(torch.device("cpu"))
SELF = Interleaving(variant=Variant.SELF, input=Input(kind=InputKind.CENTER_CROP, side=SIDE))


def _options(folder: Path, *changes: str, seed: int = 0, folds: int = 0, name: str = "run") -> TransferOptions:
    recipe = load_recipe(str(write_interleaved_recipe(folder)), "grouped", changes)
    return TransferOptions(recipe, "", "", seed, folds, folder / "runs", name)


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    return Sources.find(write_packs(tmp_path), tmp_path / "cache")


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_network(folder / "network.safetensors")[0]


@pytest.mark.parametrize(("variant", "classes"), [("regular", 3), ("self", 30), ("greedy", 3), ("greedy_legacy", 3)])
def test_a_run_leaves_a_network_of_the_target_alone(tmp_path: Path, sources: Sources, variant: str, classes: int) -> None:
    folder = run(_options(tmp_path, f"interleaving.variant={variant}"), sources, CPU)
    trained = load_trained(folder / "final")
    assert list(trained.network.heads) == [HEAD]
    assert (trained.about["source"], trained.about["source_classes"], len(trained.about["history"])) == ("lc25000_tiles", classes, 2)
    assert trained.about["batches"] == [10, 12]  # of 60 tiles and 72 cells
    assert trained.about["steps"] == 12
    predictions = Predictions.load(folder / "final" / "predictions.safetensors")
    pack = cell_pack()
    assert sorted(predictions.keys) == sorted(pack.keys[pack.in_subset(Subset.CALIBRATION)])
    assert (folder / "final" / "warm-up" / "source" / "checkpoint.safetensors").is_file()
    assert (folder / "final" / "warm-up" / HEAD / "checkpoint.safetensors").is_file()
    assert any(line.startswith("pooled, AUC: ") for line in write_report(folder))


@pytest.mark.parametrize("variant", ["regular", "self", "greedy", "greedy_legacy"])
def test_cells_are_learned(tmp_path: Path, sources: Sources, variant: str) -> None:
    changes = (f"interleaving.variant={variant}", "fine_tuning.epochs=12", "interleaving.readaptation=60")
    predictions = Predictions.load(run(_options(tmp_path, *changes), sources, CPU) / "final" / "predictions.safetensors")
    assert auc(predictions.margin, predictions.is_blast.astype(np.int64)) > 0.95
    assert float(((predictions.margin > 0) == (predictions.is_blast == 1)).mean()) > 0.8


@pytest.mark.parametrize("variant", ["regular", "greedy"])
def test_the_same_seed_gives_the_same_bits_and_the_source_matters(tmp_path: Path, sources: Sources, variant: str) -> None:
    change = f"interleaving.variant={variant}"
    first = _weights(run(_options(tmp_path, change, name="a"), sources, CPU) / "final")
    again = _weights(run(_options(tmp_path, change, name="b"), sources, CPU) / "final")
    assert all(torch.equal(first[n], again[n]) for n in first)
    alone = _weights(run_alone(_options(tmp_path, "interleaving.enabled=false", name="c"), sources, CPU) / "final")
    assert alone.keys() == first.keys()
    assert not torch.equal(first["backbone.conv1.weight"], alone["backbone.conv1.weight"])


def _run(folder: Path, name: str) -> None:
    """What a child process runs."""
    torch.set_num_threads(1)
    sources = Sources.find([folder / "tissue.pack", folder / "cells.pack"], folder / "cache")
    run(_options(folder, "interleaving.variant=greedy", "warm_up.epochs=20", "fine_tuning.epochs=6", name=name), sources, CPU)


@pytest.mark.nightly
def test_killed_in_the_warm_up_or_after_it_a_run_ends_at_the_same_bits(tmp_path: Path, sources: Sources) -> None:
    generator = random.Random(time.time_ns())
    for begun in ("warm-up/source", f"warm-up/{HEAD}", "."):
        code = f"from pathlib import Path; from tests.training.runs.test_interleaved import _run; _run(Path({str(tmp_path)!r}), 'killed')"
        child = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL)
        while child.poll() is None and not (tmp_path / "runs" / "killed" / "final" / begun / "tensorboard").exists():
            time.sleep(0.005)
        time.sleep(generator.uniform(0.0, 0.3))
        child.kill()
        child.wait(60)
    _run(tmp_path, "killed")
    _run(tmp_path, "whole")
    killed, whole = (_weights(tmp_path / "runs" / name / "final") for name in ("killed", "whole"))
    assert not [name for name in whole if not torch.equal(killed[name], whole[name])]


def test_folds_are_by_patient_and_finished_ones_stay(tmp_path: Path, sources: Sources) -> None:
    folder = run(_options(tmp_path, folds=3), sources, CPU)
    expected = _weights(folder / "fold-1")
    for name in ("network.safetensors", "predictions.safetensors"):
        (folder / "fold-1" / name).unlink()
    stamps = {p: p.stat().st_mtime_ns for p in folder.glob("fold-[02]/network.safetensors")}
    run(_options(tmp_path, folds=3), sources, CPU)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in _weights(folder / "fold-1").items())
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    arm = read_arm(folder)
    assert len(np.unique(arm.patients)) == 15


def test_the_warm_up_moves_the_heads_alone(tmp_path: Path, sources: Sources) -> None:
    still = ("fine_tuning.optimiser.rate=1e-12", "fine_tuning.average_decay=0.0")
    warmed = load_trained(run(_options(tmp_path, *still, name="warm"), sources, CPU) / "final").network
    cold = load_trained(run(_options(tmp_path, *still, "warm_up.optimiser.rate=1e-12", name="cold"), sources, CPU) / "final").network
    pairs = zip(warmed.named_parameters(), cold.named_parameters(), strict=True)
    assert {name for (name, a), (_, b) in pairs if not torch.allclose(a, b, atol=1e-6)} == {"heads.classes.weight", "heads.classes.bias"}


def test_what_a_source_teaches() -> None:
    assert group_labels(np.array(["b", "a", "b"])).tolist() == [[0, 1], [1, 0], [0, 1]]
    pack = tissue_pack()
    samples = source_samples(pack, SELF)
    assert samples.labels.shape == (60, 30)
    assert samples.labels.sum(axis=0).tolist() == [2] * 30
    assert np.array_equal(source_samples(pack, SELF.model_copy(update={"variant": Variant.GREEDY})).labels, pack.labels)
    with pytest.raises(RecipeError, match="does not say what its images come from"):
        source_samples(replace(pack, header=replace(pack.header, grouped_by=GroupKind.NONE)), SELF)


def test_which_source_images_are_learned_from() -> None:
    pack = tissue_pack()
    samples = source_samples(pack, SELF)
    assert len(source_split(samples, SELF, 0).train) == 60
    published = SELF.model_copy(update={"part": "published"})
    thirds = replace(samples, fine=np.arange(60) // 20)
    split = source_split(thirds, published, 0)
    assert [len(chosen) for chosen in (split.train, split.validation, split.test)] == [42, 12, 6]
    assert np.bincount(thirds.fine[split.train]).tolist() == [14] * 3
    regular = published.model_copy(update={"variant": Variant.REGULAR})
    split = source_split(source_samples(pack, regular), regular, 0)
    fold = greedy_folds(pack.labels)
    assert [np.unique(fold[chosen]).tolist() for _, chosen in split.named()] == [list(range(8)), [8], [9]]


def _adp(folder: Path) -> Pack:
    from training.datasets.tissue import adp_classes

    classes = adp_classes(3)
    labels = (np.random.default_rng(0).random((60, len(classes))) < 0.3).astype(np.int8)
    pack = tissue_pack()
    header = replace(pack.header, dataset="adp", classes=classes, multi_label=True, grouped_by=GroupKind.SLIDE, center_crop=272)
    return replace(pack, header=header, labels=labels)


def test_the_published_protocol_runs_on_a_multi_label_source(tmp_path: Path) -> None:
    """Smaller and shorter."""
    cells = cell_pack(input_kind="center_crop")
    write_pack(replace(cells, header=replace(cells.header, dataset="cnmc", center_crop=450)), tmp_path / "cnmc.pack")
    write_pack(_adp(tmp_path), tmp_path / "adp.pack")
    sides = [f"{s}.input.side={SIDE}" for s in ("warm_up", "interleaving", "fine_tuning")]
    recipe = load_recipe("dl4all_cnn", "published", ["network.width=8", "fine_tuning.epochs=2", "interleaving.readaptation=2", *sides])
    sources = Sources.find([tmp_path / "cnmc.pack", tmp_path / "adp.pack"], tmp_path / "cache")
    folder = run(TransferOptions(recipe, "", "", 42, 0, tmp_path / "runs", "run"), sources, CPU)
    about = load_trained(folder / "repetition-0").about
    assert (about["source_classes"], about["batches"]) == (38, [8, 8])
    assert [sorted(epoch) for epoch in about["history"]] == 2 * [
        ["epoch", "loss", "rate", "steps_per_second", "validation_accuracy", "validation_loss"]
    ]


def test_what_cannot_be_run_is_told_before_anything_is_written(tmp_path: Path, sources: Sources) -> None:
    several = Worker(torch.device("cpu"), 0, 2)
    with pytest.raises(RecipeError, match="runs in one process, not 2"):
        run(_options(tmp_path, "interleaving.variant=greedy"), sources, several)
    with pytest.raises(RecipeError, match="has no interleaving"):
        run(_options(tmp_path, "interleaving.enabled=false"), sources, CPU)
    with pytest.raises(DatasetError, match="No data set for the source"):
        run(_options(tmp_path), Sources.find([tmp_path / "cells.pack"], tmp_path), CPU)
    assert not (tmp_path / "runs").exists()


def test_another_variant_never_goes_on_from_what_is_there(tmp_path: Path, sources: Sources) -> None:
    run(_options(tmp_path), sources, CPU)
    with pytest.raises(RecipeError, match="another recipe"):
        run(_options(tmp_path, "interleaving.variant=self"), sources, CPU)


@pytest.mark.parametrize(("architecture", "width"), [("resnet18", 8), ("vit_small", 32)])
def test_a_run_becomes_a_release(tmp_path: Path, sources: Sources, architecture: str, width: int) -> None:
    write_pack(other_source_pack(), tmp_path / "pbc.pack")
    write_pack(cell_pack(patients=24), tmp_path / "cells.pack")
    folder = run(_options(tmp_path, "fine_tuning.epochs=12", f"network.architecture={architecture}", f"network.width={width}"), sources, CPU)
    packs = Sources.find([tmp_path / n for n in ("tissue.pack", "cells.pack", "pbc.pack")], tmp_path / "cache")
    built = build(BuildOptions(folder, None, "small-interleaved-1", tmp_path / "releases", tmp_path / "model_repository"), packs)
    assert built.release == "small-interleaved-1"
    assert any(line.startswith("small-interleaved-1: whole") for line in check_releases(tmp_path / "releases", tmp_path / "model_repository"))
