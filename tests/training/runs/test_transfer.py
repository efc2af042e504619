"""Tests of pretraining and fine-tuning from end to end, on small packs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from services.preprocessing.unsharpening import FocusParameters
from tests.paths import ROOT
from tests.training.small import FOCUS, SIDE, cell_pack, patch_pack, tissue_pack, write_packs, write_recipe
from training.crops.packs import read_pack, write_pack
from training.crops.sources import Sources
from training.datasets.dataset import GroupKind, Subset
from training.errors import ArrayFileError, DatasetError, RecipeError, SplitError
from training.learning.checkpoints import load_network
from training.learning.devices import Worker
from training.recipes.config import Input, InputKind, load_recipe
from training.runs.arms import read_arm
from training.runs.fitting import start_from
from training.runs.folder import Predictions, TransferOptions, load_trained
from training.runs.report import write_report
from training.runs.transfer import run

pytestmark = pytest.mark.slow

CPU = Worker(torch.device("cpu"))


def _options(folder: Path, *changes: str, preset: str = "grouped", seed: int = 0, folds: int = 0, name: str = "run") -> TransferOptions:
    recipe = load_recipe(str(write_recipe(folder)), preset, changes)
    return TransferOptions(recipe, "", "", seed, folds, folder / "runs", name)


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    return Sources.find(write_packs(tmp_path), tmp_path / "cache")


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_network(folder / "network.safetensors")[0]


def test_the_warm_up_moves_the_heads_alone(tmp_path: Path, sources: Sources) -> None:
    once = ("pretraining.enabled=false", "fine_tuning.epochs=1", "fine_tuning.average_decay=0.0", "warm_up.batch=8", "warm_up.epochs=1")
    warm = (*once, "warm_up.input.kind=registered_sharpened", f"warm_up.input.side={SIDE}", "warm_up.optimiser.rate=0.1")
    still = "fine_tuning.optimiser.rate=1e-12"
    warmed = load_trained(run(_options(tmp_path, *warm, still, name="warm"), sources, CPU) / "final").network
    cold = load_trained(run(_options(tmp_path, *warm, still, "warm_up.optimiser.rate=1e-12", name="cold"), sources, CPU) / "final").network
    pairs = zip(warmed.named_parameters(), cold.named_parameters(), strict=True)
    moved = {name for (name, a), (_, b) in pairs if not torch.allclose(a, b, atol=1e-6)}
    assert moved
    assert all(name.startswith("heads.") for name in moved)
    then = _weights(run(_options(tmp_path, *warm, name="then"), sources, CPU) / "final")
    assert not torch.equal(then["backbone.conv1.weight"], cold.state_dict()["backbone.conv1.weight"])
    assert set(then["backbone.layer1.0.conv1.1.weight"].unique().tolist()) == {-1.0, 0.0, 1.0}


def test_metric_learning_trains_as_published(tmp_path: Path) -> None:
    """With its warm-up, triplets and orthogonality; smaller, shorter, from scratch."""
    small = [
        "network.width=8",
        "pretraining.enabled=false",
        "fine_tuning.epochs=2",
        "warm_up.epochs=1",
        "split.repetitions=1",
        "injection.nothing=0.3",
    ]
    recipe = load_recipe("dss", "published", [*small, f"fine_tuning.input.side={SIDE}"])
    patches = tmp_path / "patches.pack"
    write_pack(replace(without := patch_pack(), header=replace(without.header, dataset="all_idb_patches", center_crop=0)), patches)
    tissue, cells = write_packs(tmp_path, input_kind="legacy_sharpened")
    write_pack(replace(pack := read_pack(cells), header=replace(pack.header, threshold="tuned_legacy")), cells)
    sources = Sources.find([tissue, cells, patches], tmp_path / "cache")
    part = run(TransferOptions(recipe, "", "", 0, 0, tmp_path / "runs", "run"), sources, CPU) / "repetition-0"
    assert (part / "warm-up" / "checkpoint.safetensors").is_file()
    assert (part / "unsplit" / "checkpoint.safetensors").is_file()
    assert load_trained(part).network.heads["classes"].out_features == 4
    assert Predictions.load(part / "predictions.safetensors").logits.shape[1] == 3
    assert [sorted(epoch) for epoch in load_trained(part).about["history"]] == 2 * [
        ["epoch", "loss", "rate", "steps_per_second", "validation_accuracy", "validation_loss"]
    ]


def test_from_source_to_target(tmp_path: Path, sources: Sources) -> None:
    folder = run(_options(tmp_path), sources, CPU)
    trained = load_trained(folder / "final")
    assert trained.about["source"] == "lc25000_tiles"
    assert len(trained.about["history"]) == 2
    predictions = Predictions.load(folder / "final" / "predictions.safetensors")
    pack = cell_pack()
    assert sorted(predictions.keys) == sorted(pack.keys[pack.in_subset(Subset.CALIBRATION)])
    assert set(predictions.part) == {"validation"}
    source = _weights(next((tmp_path / "runs").glob("source-*")))
    fixed = "backbone.layer1.0.conv1.1.weight"
    assert torch.equal(source[fixed], _weights(folder / "final")[fixed])
    assert set(source[fixed].unique().tolist()) == {-1.0, 0.0, 1.0}


def test_the_same_seed_gives_the_same_network_and_pretraining_matters(tmp_path: Path, sources: Sources) -> None:
    first = _weights(run(_options(tmp_path, name="a"), sources, CPU) / "final")
    again = _weights(run(_options(tmp_path, name="b"), sources, CPU) / "final")
    scratch = _weights(run(_options(tmp_path, "pretraining.enabled=false", name="c"), sources, CPU) / "final")
    assert all(torch.equal(first[n], again[n]) for n in first)
    assert not torch.equal(first["backbone.conv1.weight"], scratch["backbone.conv1.weight"])
    assert len(list((tmp_path / "runs").glob("source-*"))) == 1


def test_finished_parts_are_not_done_again_and_an_interrupted_one_goes_on(tmp_path: Path, sources: Sources) -> None:
    folder = run(_options(tmp_path, folds=3), sources, CPU)
    files = {p.name: (p / "network.safetensors").stat().st_mtime_ns for p in folder.glob("fold-*")}
    expected = _weights(folder / "fold-1")
    (folder / "fold-1" / "network.safetensors").unlink()
    (folder / "fold-1" / "predictions.safetensors").unlink()
    run(_options(tmp_path, folds=3), sources, CPU)
    found = _weights(folder / "fold-1")
    assert all(torch.equal(expected[n], found[n]) for n in expected)
    assert {n: (folder / n / "network.safetensors").stat().st_mtime_ns for n in files if n != "fold-1"} == {
        n: t for n, t in files.items() if n != "fold-1"
    }


def test_folds_predict_every_development_cell_once_and_no_test_cell(tmp_path: Path, sources: Sources) -> None:
    folder = run(_options(tmp_path, folds=3), sources, CPU)
    found = [Predictions.load(p) for p in sorted(folder.glob("*/predictions.safetensors"))]
    keys = np.concatenate([p.keys for p in found])
    pack = cell_pack()
    assert sorted(keys) == sorted(pack.keys[pack.in_subset(Subset.TRAIN, Subset.CALIBRATION)])
    groups = [set(p.groups) for p in found]
    assert not any(a & b for i, a in enumerate(groups) for b in groups[i + 1 :])
    lines = write_report(folder)
    assert any(line.startswith("pooled, AUC: ") for line in lines)
    assert (folder / "curves.svg").read_text(encoding="utf-8").count("<path") > 3
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert 0.0 <= summary["pooled, AUC"][0] <= 1.0


def test_published_divides_by_image_and_scores_its_own_test_part(tmp_path: Path) -> None:
    folder_of_packs = write_packs(tmp_path, input_kind="center_crop")
    sources = Sources.find(folder_of_packs, tmp_path / "cache")
    folder = run(_options(tmp_path, preset="published"), sources, CPU)
    found = [Predictions.load(p) for p in sorted(folder.glob("*/predictions.safetensors"))]
    assert [{n: int((p.part == n).sum()) for n in np.unique(p.part)} for p in found] == [{"test": 54, "validation": 10}] * 2
    about = load_trained(folder / "repetition-0").about
    assert about["normaliser"] == [[0.0] * 3, [1.0] * 3]
    assert "validation_accuracy" in about["history"][0]
    write_report(folder)


@pytest.mark.parametrize("folds", [0, 3])
@pytest.mark.parametrize("broken", ["group in test", "file in test", "no blast in test"])
def test_the_test_part_must_not_leak_either(tmp_path: Path, broken: str, folds: int) -> None:
    pack = cell_pack()
    subsets, sha256, is_blast = pack.subsets.copy(), pack.sha256.copy(), pack.is_blast.copy()
    test = np.flatnonzero(subsets == Subset.TEST.value)
    if broken == "group in test":
        subsets[0] = Subset.TEST.value
    elif broken == "file in test":
        sha256[test[0]] = sha256[0]
    else:
        is_blast[test] = 0
    write_pack(replace(pack, subsets=subsets, sha256=sha256, is_blast=is_blast), tmp_path / "cells.pack")
    messages = {"group in test": "share 1 groups by patient", "file in test": "the same picture stands twice", "no blast in test": "blast in test"}
    with pytest.raises((SplitError, DatasetError), match=messages[broken]):
        run(_options(tmp_path, "pretraining.enabled=false", folds=folds), Sources.find([tmp_path / "cells.pack"], tmp_path), CPU)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("first", "second"), [(3, 5), (5, 3), (3, 0)])
def test_another_number_of_folds_never_goes_on_from_what_is_there(tmp_path: Path, sources: Sources, first: int, second: int) -> None:
    folder = run(_options(tmp_path, "pretraining.enabled=false", folds=first), sources, CPU)
    with pytest.raises(RecipeError, match="another folds"):
        run(_options(tmp_path, "pretraining.enabled=false", folds=second), sources, CPU)
    (folder / "run.json").unlink()
    (folder / "fold-0" / "network.safetensors").unlink()
    with pytest.raises(ArrayFileError, match="other options or data"):
        run(_options(tmp_path, "pretraining.enabled=false", folds=5 if first == 3 else 3), sources, CPU)


def test_an_unfinished_cross_validation_is_not_read(tmp_path: Path, sources: Sources) -> None:
    folder = run(_options(tmp_path, "pretraining.enabled=false", folds=3), sources, CPU)
    assert len(np.unique(read_arm(folder).patients)) == 15
    shutil.rmtree(folder / "fold-2")
    with pytest.raises(RecipeError, match="not a finished cross-validation"):
        read_arm(folder)
    with pytest.raises(RecipeError, match="not the folder of a run"):
        read_arm(tmp_path)


def test_test_patients_take_part_only_where_all_are_asked_for(tmp_path: Path, sources: Sources) -> None:
    options = _options(tmp_path, "pretraining.enabled=false", folds=3)
    everyone = run(replace(options, everyone=True, name="everyone"), sources, CPU)
    predicted, cells = read_arm(everyone), sources.pack("aml_cells", options.recipe.fine_tuning.input)
    assert set(predicted.keys) == set(cells.keys[cells.is_blast >= 0])
    assert set(cells.groups[cells.in_subset(Subset.TEST)]) <= set(predicted.patients)
    with pytest.raises(RecipeError, match="another patients"):
        run(replace(options, name="everyone"), sources, CPU)
    with pytest.raises(RecipeError, match="give --folds"):
        replace(options, everyone=True, folds=0)


def test_packs_of_another_level_or_focus_are_told(tmp_path: Path) -> None:
    adp = tissue_pack()
    write_pack(replace(adp, header=replace(adp.header, dataset="adp")), tmp_path / "adp.pack")
    write_pack(cell_pack(), tmp_path / "cells.pack")
    sources = Sources.find([tmp_path / "adp.pack", tmp_path / "cells.pack"], tmp_path)
    with pytest.raises(RecipeError, match="dl4all data pack --level 3"):
        run(_options(tmp_path, "pretraining.level=3"), sources, CPU)
    wanted = Input(kind=InputKind.REGISTERED_SHARPENED, side=32)
    assert len(sources.pack("aml_cells", wanted, focus=FocusParameters(**FOCUS)))
    with pytest.raises(RecipeError, match="other focus parameters"):
        sources.pack("aml_cells", wanted, focus=FocusParameters((1.0,), (5.0,), (9.0,)))
    tuned = wanted.model_copy(update={"threshold": "tuned"})
    assert len(sources.pack("aml_cells", tuned)), "a pack that does not say"
    write_pack(replace(pack := cell_pack(), header=replace(pack.header, threshold="quantile")), tmp_path / "cells.pack")
    with pytest.raises(RecipeError, match="dl4all data pack --threshold tuned"):
        sources.pack("aml_cells", tuned)


@pytest.mark.nightly
def test_torchs_launcher_trains_source_and_target_and_goes_on(tmp_path: Path) -> None:
    tissue, cells = write_packs(tmp_path)
    recipe = write_recipe(tmp_path)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "clients.cli.main"]
    command += ["train", str(recipe), "--data", str(tissue), "--data", str(cells), "--runs", str(tmp_path / "runs"), "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for _ in range(2):
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("final, validation: AUC") == 1
        (tmp_path / "runs" / "small-grouped-0" / "final" / "network.safetensors").unlink()


@pytest.mark.parametrize("broken", ["leak", "unknown", "one class", "no blast in calibration"])
def test_splits_that_leak_or_lack_a_class_write_nothing(tmp_path: Path, broken: str) -> None:
    pack = cell_pack()
    subsets, is_blast, grouped_by = pack.subsets.copy(), pack.is_blast.copy(), GroupKind.PATIENT
    if broken == "leak":
        subsets[0] = Subset.CALIBRATION.value
    elif broken == "unknown":
        grouped_by = GroupKind.NONE
    elif broken == "one class":
        is_blast[:] = 0
    else:
        is_blast[subsets == Subset.CALIBRATION.value] = 0
    write_pack(tissue_pack(), tmp_path / "tissue.pack")
    write_pack(replace(pack, subsets=subsets, is_blast=is_blast, header=replace(pack.header, grouped_by=grouped_by)), tmp_path / "cells.pack")
    sources = Sources.find([tmp_path / "tissue.pack", tmp_path / "cells.pack"], tmp_path / "cache")
    messages = {"leak": "The split leaks", "unknown": "Nothing is known", "one class": "No image of class blast in the data"}
    with pytest.raises(SplitError, match=messages.get(broken, "No image of class blast in validation")):
        run(_options(tmp_path), sources, CPU)
    assert not (tmp_path / "runs").exists()


def test_a_source_that_lacks_a_class_is_refused(tmp_path: Path, sources: Sources) -> None:
    pack = tissue_pack()
    write_pack(pack.select(pack.labels[:, 2] == 0), tmp_path / "tissue.pack")
    with pytest.raises(SplitError, match="No image of class c in the data"):
        run(_options(tmp_path), Sources.find([tmp_path / "tissue.pack", tmp_path / "cells.pack"], tmp_path), CPU)


def test_another_run_under_the_same_name_is_refused(tmp_path: Path, sources: Sources) -> None:
    run(_options(tmp_path), sources, CPU)
    with pytest.raises(RecipeError, match=r"holds a run with another recipe.*--name"):
        run(_options(tmp_path, "fine_tuning.epochs=3"), sources, CPU)
    with pytest.raises(RecipeError, match="another seed"):
        run(_options(tmp_path, seed=1), sources, CPU)


def test_a_tampered_network_is_told(tmp_path: Path, sources: Sources) -> None:
    folder = run(_options(tmp_path), sources, CPU)
    path = folder / "final" / "network.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArrayFileError, match="does not match its checksum"):
        load_trained(folder / "final")


def test_weights_of_another_network_are_refused(tmp_path: Path, sources: Sources) -> None:
    trained = load_trained(run(_options(tmp_path), sources, CPU) / "final")
    weights = {n: t for n, t in trained.network.state_dict().items() if "layer4" not in n}
    with pytest.raises(ArrayFileError, match="another network"):
        start_from(trained.network, weights)


def test_missing_and_doubled_data_sets_are_told(tmp_path: Path, sources: Sources) -> None:
    with pytest.raises(DatasetError, match="No data set for the source: adp, lc25000_tiles; choose with --source"):
        run(_options(tmp_path), Sources.find([tmp_path / "cells.pack"], tmp_path), CPU)
    with pytest.raises(DatasetError, match="No data set for the target"):
        run(_options(tmp_path), Sources.find([tmp_path / "tissue.pack"], tmp_path), CPU)
    pack = cell_pack()
    write_pack(replace(pack, header=replace(pack.header, dataset="cnmc")), tmp_path / "more.pack")
    paths = [tmp_path / name for name in ("tissue.pack", "cells.pack", "more.pack")]
    with pytest.raises(DatasetError, match="Several data sets for the target: aml_cells, cnmc"):
        run(_options(tmp_path), Sources.find(paths, tmp_path), CPU)


def test_packs_of_another_side_are_told(tmp_path: Path, sources: Sources) -> None:
    with pytest.raises(RecipeError, match="needs registered_sharpened at 64 px of cell, the packs hold registered_sharpened at 32 px"):
        run(_options(tmp_path, "fine_tuning.input.side=64"), sources, CPU)


def test_a_run_needs_nothing_but_the_packs(tmp_path: Path, sources: Sources) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("tissue.pack", "cells.pack"):
        shutil.copy(tmp_path / name, elsewhere / name)
    first = run(_options(tmp_path), sources, CPU)
    second = run(_options(tmp_path, name="elsewhere"), Sources.find(sorted(elsewhere.iterdir()), tmp_path / "c"), CPU)
    one, other = _weights(first / "final"), _weights(second / "final")
    assert all(torch.equal(one[n], other[n]) for n in one)
