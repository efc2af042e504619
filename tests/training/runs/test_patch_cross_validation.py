"""Tests of cross-validating patches: networks of composed fields judge the cells of patients that they did not learn from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.small import SIDE, cell_pack, patch_pack, write_patch_recipe
from training.crops.packs import Pack, PackHeader, write_pack
from training.crops.sources import Sources
from training.datasets.dataset import GroupKind, ImageKind, Subset
from training.datasets.splits import Split
from training.errors import DatasetError, RecipeError, SplitError
from training.learning.devices import Worker
from training.recipes.config import load_recipe
from training.runs.folder import Predictions, TransferOptions
from training.runs.patch_cross_validation import run, split_of_patches
from training.runs.report import write_report
from training.runs.target import splits

pytestmark = pytest.mark.slow

CPU = Worker(torch.device("cpu"))
NOT_LOCATED = 3


def _cells() -> Pack:
    """Cells drawn as the patches are that hold one cell: blasts as blasts, normal ones as others."""
    patches = patch_pack(seed=5)
    drawn = patches.select(patches.labels.sum(axis=1) == 1)
    header = PackHeader(
        "aml_cells", ImageKind.CELL, ("blast_no_lineage_spec", "lymphocyte"), False, GroupKind.PATIENT, SIDE, "center_crop", center_crop=256
    )
    return replace(drawn, header=header, is_blast=drawn.labels[:, 0], sha256=np.array([f"c{i:063x}" for i in range(len(drawn))]))


def _write(folder: Path, *packs: Pack) -> Sources:
    for number, pack in enumerate(packs):
        write_pack(pack, folder / f"{number}.pack")
    return Sources.find([folder / f"{number}.pack" for number in range(len(packs))], folder / "cache")


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    located = replace(_cells(), header=cell_pack(input_kind="registered").header)
    return _write(tmp_path, patch_pack(), _cells(), located.select(np.arange(len(located)) != NOT_LOCATED))


def _options(folder: Path, *changes: str, target: str = "", everyone: bool = False) -> TransferOptions:
    return TransferOptions(load_recipe(str(write_patch_recipe(folder)), "grouped", changes), "", target, 0, 3, folder / "runs", "run", everyone)


def test_networks_of_patches_judge_cells_of_other_patients(tmp_path: Path, sources: Sources) -> None:
    folder = run(_options(tmp_path), sources, CPU)
    said = [Predictions.load(folder / f"fold-{k}" / "predictions.safetensors") for k in range(3)]
    keys, margins, is_blast = (np.concatenate(parts) for parts in zip(*((p.keys, p.margin, p.is_blast) for p in said), strict=True))
    cells = _cells()
    judged = ~cells.in_subset(Subset.TEST) & (np.arange(len(cells)) != NOT_LOCATED)
    assert sorted(keys) == sorted(cells.keys[judged])
    assert ((margins > 0) == (is_blast == 1)).mean() > 0.9
    assert any(line.startswith("pooled, AUC") for line in write_report(folder))


def test_what_is_finished_stays_and_test_patients_are_judged_where_all_are_asked_for(tmp_path: Path, sources: Sources) -> None:
    options = _options(tmp_path, "fine_tuning.epochs=1", everyone=True)
    networks = [run(options, sources, CPU) / f"fold-{k}" / "network.safetensors" for k in range(3)]
    before = [path.stat().st_mtime_ns for path in networks]
    run(options, sources, CPU)
    assert [path.stat().st_mtime_ns for path in networks] == before
    judged = np.concatenate([Predictions.load(path.with_name("predictions.safetensors")).groups for path in networks])
    assert set(judged) == set(_cells().groups)


def test_a_fold_learns_no_patch_of_the_patients_that_it_judges(tmp_path: Path) -> None:
    patches, cells = patch_pack(), _cells()
    folds = splits(cells, _options(tmp_path))
    assert len(folds) == 3
    for judged in folds.values():
        learned = split_of_patches(patches, cells, judged)
        assert set(patches.groups[learned.train]) == set(cells.groups[judged.train])
        assert set(patches.groups[learned.validation]) == set(cells.groups[judged.validation])
        assert not set(patches.groups[learned.train]) & set(cells.groups[judged.validation])


def test_a_patient_without_patches_is_judged_all_the_same() -> None:
    patches, cells = patch_pack(), _cells()
    judged = Split(np.flatnonzero(cells.groups != "P00"), np.flatnonzero(cells.groups == "P00"), np.zeros(0, np.int64))
    learned = split_of_patches(patches.select(patches.groups != "P00"), cells, judged)
    assert len(learned.validation) == 0
    assert len(learned.train) == len(patches) - 6


def test_what_makes_no_sense_is_refused(tmp_path: Path, sources: Sources) -> None:
    for options in (_options(tmp_path, "split.by=multi_label_folds"), _options(tmp_path, target="all_idb_patches")):
        with pytest.raises(RecipeError, match="by patient on composed_fields alone"):
            run(options, sources, CPU)
    with pytest.raises(DatasetError, match="aml_cells"):
        run(_options(tmp_path), _write(tmp_path, patch_pack()), CPU)
    blasts = patch_pack()
    with pytest.raises(SplitError):
        split_of_patches(blasts.select(blasts.labels[:, 1] == 0), _cells(), next(iter(splits(_cells(), _options(tmp_path)).values())))
