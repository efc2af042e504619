"""Tests of cells that are made to touch: copies lie against each other, and nothing else changes."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from services.patching.locator_maps import Kind
from tests.training.location.drawn import Disk, window
from training.location.crowding import APART, MOST, crowd
from training.location.window import Window

CELL = Disk(64, 64, radius=14, nucleus=9)
PLATELET = Disk(10, 100, radius=3, nucleus=2, kind=Kind.PLATELET)
SMUDGED = Disk(110, 20, radius=10, nucleus=7, kind=Kind.SMUDGED)
RADIUS = math.sqrt(np.count_nonzero(window([CELL], 128).owners) / math.pi)


@pytest.fixture(scope="module")
def before() -> Window:
    return window([PLATELET, CELL, SMUDGED, Disk(20, 20, is_known=False)], 128)


@pytest.fixture(scope="module")
def crowded(before: Window) -> list[Window]:
    return [crowd(before, np.random.default_rng(seed)) for seed in range(25)]


def _copies(before: Window, after: Window) -> range:
    return range(len(before.kinds), len(after.kinds))


def test_as_many_copies_are_pasted_as_are_drawn(before: Window, crowded: list[Window]) -> None:
    counts = [len(_copies(before, after)) for after in crowded]
    assert min(counts) >= 1
    assert max(counts) <= MOST
    assert len(set(counts)) > 2


def test_copies_touch_a_cell_or_overlap_it_a_little(before: Window, crowded: list[Window]) -> None:
    for after in crowded:
        for index in _copies(before, after):
            earlier = [i for i in range(index) if i == 1 or i >= len(before.kinds)]
            nearest = min(math.dist((after.x[index], after.y[index]), (after.x[i], after.y[i])) for i in earlier)
            assert APART[0] - 0.01 <= nearest / (2 * RADIUS) <= APART[1] + 0.01


def test_the_outline_of_a_copy_meets_its_neighbour_and_leaves_most_of_it_free(before: Window, crowded: list[Window]) -> None:
    for after in crowded:
        last = after.owners == len(after.kinds)
        around = cv2.dilate(last.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
        others = (after.owners == 2) | (after.owners > len(before.kinds)) & ~last
        assert (around & others).any()
        if len(after.kinds) == len(before.kinds) + 1:
            assert np.count_nonzero(after.owners == 2) > 0.6 * before.areas[1]


def test_copies_are_nucleated_cells_with_numbers_of_their_own(before: Window, crowded: list[Window]) -> None:
    for after in crowded:
        count = len(after.kinds)
        assert {len(getattr(after, name)) for name in ("x", "y", "kinds", "areas")} == {count}
        assert {getattr(after, name).dtype for name in ("x", "y", "areas")} == {np.dtype(np.float32)}
        assert after.kinds.dtype == np.int8
        assert after.owners.dtype == np.int16
        copies = _copies(before, after)
        assert all(after.kinds[i] == Kind.NUCLEATED for i in copies)
        assert after.owners.max() <= count
        assert (after.owners == count).any()
        for name in ("kinds", "areas"):
            assert np.array_equal(getattr(after, name)[: len(before.kinds)], getattr(before, name))
        masked = before.areas > 0
        assert np.array_equal(after.x[: len(before.kinds)][masked], before.x[masked])
        assert np.array_equal(after.y[: len(before.kinds)][masked], before.y[masked])


def test_the_last_copy_is_whole_and_has_its_number_where_it_says(before: Window, crowded: list[Window]) -> None:
    checked = 0
    for after in crowded:
        last = len(after.kinds) - 1
        rows, columns = np.nonzero(after.owners == last + 1)
        if min(after.x[last], after.y[last], 127 - after.x[last], 127 - after.y[last]) < RADIUS + 3:
            continue
        checked += 1
        assert rows.size == after.areas[last] == pytest.approx(before.areas[1], rel=0.05)
        assert math.dist((columns.mean(), rows.mean()), (after.x[last], after.y[last])) < 1.0
    assert checked > 10


def test_a_copy_looks_like_its_cell(before: Window, crowded: list[Window]) -> None:
    cell, nucleus = before.owners == 2, before.nuclei & (before.owners == 2)
    for after in crowded:
        last = after.owners == len(after.kinds)
        assert np.count_nonzero(last & after.nuclei) > 0
        for whole, part in ((cell & ~nucleus, last & ~after.nuclei), (nucleus, last & after.nuclei)):
            np.testing.assert_allclose(after.pixels[part].mean(axis=0), before.pixels[whole].mean(axis=0), atol=12)


def test_what_a_copy_covers_belongs_to_it_and_is_sure(before: Window, crowded: list[Window]) -> None:
    covered = {"cell": 0, "unsure": 0}
    for after in crowded:
        pasted = after.owners > len(before.kinds)
        covered["cell"] += int(np.count_nonzero((before.owners == 2) & pasted))
        covered["unsure"] += int(np.count_nonzero(before.unsure & pasted))
        assert np.array_equal(after.unsure, before.unsure & ~pasted)
    assert min(covered.values()) > 0


def test_nothing_changes_outside_the_copies(before: Window, crowded: list[Window]) -> None:
    for after in crowded:
        free = after.owners <= len(before.kinds)
        for name in ("pixels", "owners", "nuclei", "unsure"):
            assert np.array_equal(getattr(after, name)[free], getattr(before, name)[free]), name
        assert not np.array_equal(after.pixels, before.pixels)


def test_the_window_itself_is_left_alone(before: Window) -> None:
    kept = before.pixels.copy(), before.owners.copy()
    crowd(before, np.random.default_rng(3))
    assert np.array_equal(before.pixels, kept[0])
    assert np.array_equal(before.owners, kept[1])


@pytest.mark.parametrize(
    "cells",
    [
        [],
        [Disk(4, 64, radius=14)],
        [SMUDGED, PLATELET],
        [Disk(64, 64, radius=14, is_known=False)],
        [Disk(64, -60, radius=14)],
    ],
    ids=["nothing", "cut off", "not nucleated", "no mask", "outside"],
)
def test_a_window_without_a_whole_nucleated_cell_stays_as_it_is(cells: list[Disk]) -> None:
    before = window(cells, 128)
    assert crowd(before, np.random.default_rng(0)) is before


def test_a_copy_may_leave_the_window() -> None:
    before = window([Disk(15, 15, radius=14)], 128)
    cut_off = 0
    for seed in range(20):
        after = crowd(before, np.random.default_rng(seed))
        shown = np.bincount(after.owners.ravel(), minlength=len(after.kinds) + 1)[1:]
        assert (shown <= after.areas).all()
        np.testing.assert_allclose(after.areas, before.areas[0], rtol=0.05)
        cut_off += int((after.x < 0).any() or (after.y < 0).any())
    assert cut_off > 0


def test_the_same_generator_gives_the_same_window(before: Window) -> None:
    first, second = (crowd(before, np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(first.pixels, second.pixels)
    assert np.array_equal(first.owners, second.owners)
