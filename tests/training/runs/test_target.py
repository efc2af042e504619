"""Tests of the target of a run: what is learned of a data set, and how it is split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.training.small import cell_pack as small_pack
from training.datasets.splits import KFOLDS
from training.errors import SplitError
from training.recipes.config import load_recipe
from training.runs.folder import TransferOptions
from training.runs.target import splits, without_copies


def _options(*changes: str, preset: str = "grouped", folds: int = 0) -> TransferOptions:
    return TransferOptions(load_recipe("dss", preset, changes), "", "", 0, folds, Path("runs"), "run")


def test_a_copy_in_another_group_is_left_out() -> None:
    """ALL-IDB2 has one picture twice, in two blocks of file numbers."""
    pack = small_pack()
    other = int(np.flatnonzero(pack.groups != pack.groups[0])[0])
    same = int(np.flatnonzero(pack.groups == pack.groups[0])[1])
    files = pack.sha256.copy()
    files[[other, same]] = files[0]
    kept = without_copies(replace(pack, sha256=files))
    assert set(pack.keys) - set(kept.keys) == {pack.keys[other]}
    assert len(without_copies(replace(pack, sha256=np.full(len(pack), "")))) == len(pack), "files of which nothing is known"


def test_without_it_the_split_is_refused() -> None:
    pack = small_pack()
    files = pack.sha256.copy()
    files[:] = files[0]
    with pytest.raises(SplitError, match="files with the same content"):
        splits(replace(pack, sha256=files), _options(folds=2))


def test_five_folds_by_image_test_every_cell_once() -> None:
    pack = small_pack()
    made = splits(pack, _options(preset="published"))
    assert len(made) == KFOLDS
    tested = np.concatenate([split.test for split in made.values()])
    assert sorted(tested.tolist()) == list(range(len(pack)))
    for split in made.values():
        assert not set(split.train) & set(split.test)
        assert not set(split.train) & set(split.validation)
        assert len(split.train) + len(split.validation) + len(split.test) == len(pack)
        assert len(split.validation) == (len(pack) - len(split.test)) // (KFOLDS - 1)
