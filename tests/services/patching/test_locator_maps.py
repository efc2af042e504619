"""Cells are read from the maps of a locator: centres, masks, kinds, and which of two cells that touch a pixel belongs to."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from services.patching.locator_maps import CELL, CHANNELS, KINDS, LEAST_PEAK, Kind, cells_of_maps, find_centres
from tests.services.patching.drawn_maps import Disk, maps_of


def test_a_disk_is_found_where_it_is() -> None:
    (cell,) = cells_of_maps(maps_of([Disk(40.3, 51.8, 13.0)], 96, 96), 96, 96)
    assert cell.centroid == pytest.approx((40.3, 51.8), abs=0.3)
    assert cell.radius == pytest.approx(13.0, abs=0.5)
    assert cell.kind is Kind.NUCLEATED
    assert cell.confidence == pytest.approx(0.9, abs=0.1)
    rows, columns = np.nonzero(cell.mask)
    assert (columns.mean() + cell.left, rows.mean() + cell.top) == pytest.approx(cell.centroid, abs=1e-6)
    assert cell.nucleus.sum() == pytest.approx(np.pi * (0.8 * 13.0) ** 2, rel=0.1)


def test_cells_that_touch_are_apart() -> None:
    disks = [Disk(40, 40, 12), Disk(62, 40, 12), Disk(51, 59, 12)]
    found = cells_of_maps(maps_of(disks, 96, 104), 96, 104)
    assert np.array(sorted(c.centroid for c in found)) == pytest.approx(np.array([(40, 40), (51, 59), (62, 40)]), abs=1)
    assert all(c.radius == pytest.approx(12, abs=1) for c in found)


def test_platelets_are_no_cells_and_smudged_cells_say_so() -> None:
    found = cells_of_maps(maps_of([Disk(30, 30, 12, Kind.SMUDGED), Disk(70, 70, 3, Kind.PLATELET)], 96, 96), 96, 96)
    assert [c.kind for c in found] == [Kind.SMUDGED]


@pytest.mark.parametrize(("nucleated", "kind"), [(0.3, Kind.NUCLEATED), (0.15, Kind.SMUDGED)])
def test_a_damaged_cell_that_looks_smudged_is_a_cell(nucleated: float, kind: Kind) -> None:
    maps = maps_of([Disk(40, 40, 12, Kind.SMUDGED, height=0.6)], 96, 96)
    maps[Kind.NUCLEATED] = maps[Kind.SMUDGED] * nucleated / 0.6
    (cell,) = cells_of_maps(maps, 96, 96)
    assert cell.kind is kind


def test_a_low_peak_is_no_centre() -> None:
    assert len(find_centres(maps_of([Disk(30, 30, 12, height=LEAST_PEAK - 0.05)], 64, 64)[:KINDS])) == 0
    assert cells_of_maps(maps_of([], 64, 64), 64, 64) == []


def test_a_speck_is_no_cell() -> None:
    assert cells_of_maps(maps_of([Disk(30, 30, 2.5)], 64, 64), 64, 64) == []


def test_nothing_lies_in_the_part_that_fills_up() -> None:
    (cell,) = cells_of_maps(maps_of([Disk(58, 30, 12)], 64, 64), 64, 60)
    assert cell.left + cell.mask.shape[1] <= 60


def test_a_hole_is_filled_and_a_part_far_off_is_dropped() -> None:
    maps = maps_of([Disk(32, 32, 13)], 96, 96)
    maps[CELL, 15:18, 15:18] = 0.0
    maps[CELL, 44:46, 44:46] = 1.0
    (cell,) = cells_of_maps(maps, 96, 96)
    assert cell.radius == pytest.approx(13, abs=0.5)
    assert cell.mask[32 - cell.top, 32 - cell.left]


@given(arrays(np.float32, (CHANNELS, 12, 16), elements=st.floats(-4, 4, width=32)))
@settings(max_examples=60, deadline=None)
def test_whatever_the_maps_are_cells_lie_inside(maps: np.ndarray) -> None:
    for cell in cells_of_maps(maps, 23, 30):
        assert cell.left >= 0
        assert cell.top >= 0
        assert cell.left + cell.mask.shape[1] <= 30
        assert cell.top + cell.mask.shape[0] <= 23
        assert cell.mask.any()
