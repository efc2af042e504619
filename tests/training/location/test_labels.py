"""Defects that labels of the locator once had."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from services.patching.locator_maps import Kind
from tests.training.location.drawn import Disk, common_share, sample, window
from tests.training.location.test_sources import _bccd
from tests.training.location.test_teacher import CELL, _box, _mark, _nucleus, _taught
from training.errors import RecipeError, TrainingError
from training.files.array_file import read_arrays
from training.learning.devices import Worker
from training.location.crowding import crowd
from training.location.recipe import load_locator_recipe
from training.location.run import samples_of, train_locator
from training.location.sources import BCCD
from training.location.targets import targets_of
from training.location.windows import cut


@pytest.mark.parametrize("apart", [26, 28, 29, 30, 31, 32, 33, 34])
def test_nuclei_that_touch_are_divided_between_their_marks(apart: int) -> None:
    cells = [CELL, Disk(CELL.x + apart, CELL.y, 20, 15)]
    taught = _taught(cells, [_mark(c) for c in cells])
    assert taught.is_known.all()
    areas = [np.count_nonzero(taught.owners == number) for number in (1, 2)]
    assert min(areas) > 0.8 * max(areas)


@pytest.mark.parametrize(("radius", "nucleus"), [(7, 5), (8, 6)])
def test_the_nucleus_of_a_cell_that_is_not_believed_is_unsure(radius: int, nucleus: int) -> None:
    small = Disk(70, 80, radius=radius, nucleus=nucleus)
    taught = _taught([small, Disk(150, 80, 20, 15)], [_mark(small)])
    assert not taught.is_known.any()
    assert taught.unsure[small.y, small.x]


def test_a_wide_box_makes_no_nucleus_larger() -> None:
    taught = _taught([CELL], [_box(30, 40, 130, 130)])
    assert common_share(taught.nuclei, _nucleus(CELL)) > 0.85


def test_a_cell_of_which_only_the_nucleus_is_sure_is_not_copied() -> None:
    made = sample([Disk(64, 48, radius=8, nucleus=8)])
    made.unsure[30:66, 46:82] = made.owners[30:66, 46:82] == 0
    before = cut(made, 20, 0, 96, 1.0)
    assert crowd(before, np.random.default_rng(0)) is before


def test_a_platelet_under_a_copy_has_no_peak() -> None:
    before = window([Disk(32, 32, radius=10, nucleus=7), *(Disk(x, 32, 2, 2, kind=Kind.PLATELET) for x in (14, 50))], 64)
    for seed in range(20):
        after = crowd(before, np.random.default_rng(seed))
        heat = targets_of(after).heat[Kind.PLATELET]
        for index in (1, 2):
            x, y = round(float(after.x[index])), round(float(after.y[index]))
            if x < 0:
                at = round(float(before.x[index])), round(float(before.y[index]))
                assert after.owners[at[1], at[0]] > 3
                assert heat[at[1] // 2, at[0] // 2] < 0.9
            else:
                assert after.owners[y, x] <= 3


def test_the_order_of_marks_changes_no_weight() -> None:
    cells = [Disk(10, 32, radius=9, nucleus=6), Disk(-12, 32, radius=12)]
    one, other = (targets_of(window(order, 64)).heat_weight for order in (cells, cells[::-1]))
    assert np.array_equal(one, other)


def test_all_steps_are_made(tmp_path: Path) -> None:
    recipe = load_locator_recipe(["training.steps=50", "training.batch=1", "windows.side=64", "network.width=4"])
    train_locator(recipe, [sample([Disk(40, 40)], source="all_idb")], tmp_path, Worker(torch.device("cpu")))
    assert read_arrays(tmp_path / "checkpoint.safetensors")[1]["step"] == 50


def test_samples_of_which_no_source_has_a_share_are_told(tmp_path: Path) -> None:
    with pytest.raises(TrainingError):
        train_locator(load_locator_recipe(["training.steps=1"]), [sample([Disk(40, 40)])], tmp_path, Worker(torch.device("cpu")))


@pytest.mark.parametrize("change", ["shares.bccd=0.5", "shares.all_idb=-1", "windows.smallest=11", "training.steps=52"])
def test_more_that_makes_no_sense_is_refused(change: str) -> None:
    with pytest.raises(RecipeError):
        load_locator_recipe([change])


def test_an_image_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    _bccd(tmp_path / BCCD, {"BloodImage_00000": []})
    (tmp_path / BCCD / "JPEGImages" / "BloodImage_00000.jpg").write_bytes(b"no image")
    with pytest.raises(TrainingError):
        samples_of([tmp_path], tmp_path / "cache", [BCCD])
