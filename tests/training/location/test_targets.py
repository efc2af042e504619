"""Tests of the maps that a window should give: peaks, ways to the centre, shares, and what does not count."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from services.patching.locator_maps import KINDS, OFFSET_X, STRIDE, Kind, cells_of_maps, find_centres
from tests.training.location.drawn import Disk, common_share, disk, window
from training.location.targets import IGNORED, LEAST_VISIBLE, SIGMA, Targets, stack, targets_of
from training.location.window import Window

SIDE = 64
RADIUS = 8.0
"""Of the red cells of drawn windows, px."""
UNIT = RADIUS / STRIDE
CELL, SMUDGED = Disk(20, 24, radius=10, nucleus=7), Disk(46, 45, radius=9, nucleus=6, kind=Kind.SMUDGED)
PLATELET = Disk(10, 54, radius=3, nucleus=2, kind=Kind.PLATELET)


def _cut_off(visible: float) -> Window:
    """A window with a cell of which the border leaves a share."""
    whole = window([Disk(0, 32, radius=12)], SIDE)
    shown = np.cumsum(np.count_nonzero(whole.owners, axis=0)[::-1])[::-1] / whole.areas[0]
    first = int(np.argmin(np.abs(shown - visible)))
    return window([Disk(-first, 32, radius=12)], SIDE)


def _maps(targets: Targets) -> np.ndarray:
    """What a locator that says exactly this would say."""
    return np.concatenate([targets.heat, targets.cell[None], targets.nucleus[None], targets.offset])


def test_a_peak_is_exactly_one_at_the_centre_and_falls_away_from_it() -> None:
    targets = targets_of(window([CELL], SIDE))
    heat = targets.heat[Kind.NUCLEATED]
    assert targets.heat.shape == (KINDS, SIDE // STRIDE, SIDE // STRIDE)
    assert np.argwhere(heat == 1.0).tolist() == [[12, 10]]
    x, y = (CELL.x - 0.5) / STRIDE, (CELL.y - 0.5) / STRIDE
    for row, column in ((12, 14), (9, 9), (18, 10)):
        squared = (column - x) ** 2 + (row - y) ** 2
        assert heat[row, column] == pytest.approx(np.exp(-squared / (2 * (SIGMA * UNIT) ** 2)), rel=1e-4)
    assert not targets.heat[Kind.SMUDGED].any()
    assert not targets.heat[Kind.PLATELET].any()


def test_every_kind_has_its_own_map() -> None:
    targets = targets_of(window([CELL, SMUDGED, PLATELET], SIDE))
    for kind, cell in ((Kind.NUCLEATED, CELL), (Kind.SMUDGED, SMUDGED), (Kind.PLATELET, PLATELET)):
        ((row, column),) = np.argwhere(targets.heat[kind] == 1.0).tolist()
        assert abs(row * STRIDE - cell.y) <= STRIDE
        assert abs(column * STRIDE - cell.x) <= STRIDE
    assert (targets.heat_weight == 1.0).all()


def test_of_cells_that_touch_each_has_its_peak() -> None:
    targets = targets_of(window([CELL, Disk(CELL.x + 18, CELL.y, 10, 7)], SIDE))
    assert np.count_nonzero(targets.heat[Kind.NUCLEATED] == 1.0) == 2
    assert targets.heat.max() == 1.0


def test_offsets_point_at_the_centre_in_red_cell_radii() -> None:
    shown = window([CELL, SMUDGED], SIDE)
    targets = targets_of(shown)
    rows, columns = np.mgrid[: SIDE // STRIDE, : SIDE // STRIDE]
    for number, cell in enumerate((CELL, SMUDGED), start=1):
        own = shown.owners[::STRIDE, ::STRIDE] == number
        np.testing.assert_allclose((columns + targets.offset[0] * UNIT)[own], (cell.x - 0.5) / STRIDE, atol=0.01)
        np.testing.assert_allclose((rows + targets.offset[1] * UNIT)[own], (cell.y - 0.5) / STRIDE, atol=0.01)
    assert np.array_equal(targets.offset_weight > 0, shown.owners[::STRIDE, ::STRIDE] > 0)
    assert not targets.offset[:, targets.offset_weight == 0].any()


def test_offsets_are_counted_in_red_cells_of_the_window() -> None:
    small, large = (targets_of(window([CELL], SIDE, red_cell_radius=radius)) for radius in (8.0, 16.0))
    np.testing.assert_allclose(small.offset, 2 * large.offset, atol=1e-6)


def test_cells_and_nuclei_are_shares_of_positions() -> None:
    shown = window([CELL], SIDE)
    targets = targets_of(shown)
    for found, mask in ((targets.cell, shown.owners > 0), (targets.nucleus, shown.nuclei)):
        assert found.sum() * STRIDE**2 == pytest.approx(np.count_nonzero(mask))
        assert set(np.unique(found)) <= {0.0, 0.25, 0.5, 0.75, 1.0}
        assert found[12, 10] == 1.0
    assert (targets.cell_weight == 1.0).all()
    assert (targets.nucleus_weight == 1.0).all()


def test_what_is_unsure_does_not_count() -> None:
    shown = window([CELL, Disk(46, 45, radius=9, is_known=False)], SIDE)
    targets = targets_of(shown)
    unsure = shown.unsure.reshape(SIDE // STRIDE, STRIDE, SIDE // STRIDE, STRIDE).any(axis=(1, 3))
    assert unsure.any()
    assert np.array_equal(targets.cell_weight == 0.0, unsure)
    assert np.array_equal(targets.nucleus_weight, targets.cell_weight)
    assert set(np.unique(targets.cell_weight)) == {0.0, 1.0}


def test_a_mark_without_a_mask_has_a_peak_all_the_same() -> None:
    targets = targets_of(window([Disk(46, 45, radius=9, is_known=False)], SIDE))
    assert np.count_nonzero(targets.heat[Kind.NUCLEATED] == 1.0) == 1
    assert not targets.offset_weight.any()


def test_nuclei_that_are_not_known_do_not_count() -> None:
    targets = targets_of(window([CELL], SIDE, nuclei_are_known=False))
    assert not targets.nucleus_weight.any()
    assert (targets.cell_weight == 1.0).all()


def test_where_platelets_are_not_marked_their_map_does_not_count() -> None:
    targets = targets_of(window([CELL], SIDE, platelets_are_marked=False))
    assert not targets.heat_weight[Kind.PLATELET].any()
    assert (targets.heat_weight[: Kind.PLATELET] == 1.0).all()


def test_a_platelet_that_is_marked_counts_where_others_are_not() -> None:
    weight = targets_of(window([CELL, PLATELET], SIDE, platelets_are_marked=False)).heat_weight[Kind.PLATELET]
    near = disk((PLATELET.x - 0.5) / STRIDE, (PLATELET.y - 0.5) / STRIDE, UNIT, *weight.shape)
    assert np.array_equal(weight > 0, near)


def test_a_cell_that_is_mostly_outside_neither_counts_as_there_nor_as_absent() -> None:
    shown = _cut_off(LEAST_VISIBLE - 0.08)
    targets = targets_of(shown)
    assert (shown.owners > 0).any()
    assert not targets.heat.any()
    rows, columns = np.nonzero(shown.owners)
    near = disk((columns.mean() - 0.5) / STRIDE, (rows.mean() - 0.5) / STRIDE, IGNORED * UNIT, SIDE // STRIDE, SIDE // STRIDE)
    for weight in targets.heat_weight:
        assert np.array_equal(weight == 0.0, near)
    assert not targets.offset_weight.any()
    assert targets.cell.any()


def test_a_cell_of_which_enough_is_seen_counts_where_it_is_seen() -> None:
    shown = _cut_off(LEAST_VISIBLE + 0.1)
    targets = targets_of(shown)
    ((row, column),) = np.argwhere(targets.heat[Kind.NUCLEATED] == 1.0).tolist()
    assert shown.owners[row * STRIDE, column * STRIDE] == 1
    assert (targets.heat_weight == 1.0).all()


@pytest.mark.parametrize("cell", [Disk(-40, 20), Disk(20, 300), Disk(-5, 20, is_known=False), PLATELET], ids=["left", "below", "no mask", "platelet"])
def test_a_mark_outside_leaves_no_trace(cell: Disk) -> None:
    targets = targets_of(window([replace(cell, x=cell.x - 80)], SIDE))
    assert not targets.heat.any()
    assert (targets.heat_weight == 1.0).all()
    assert not targets.offset_weight.any()


def test_a_cell_that_others_cover_whole_has_no_peak() -> None:
    shown = window([CELL], SIDE)
    covered = replace(shown, owners=np.zeros_like(shown.owners))
    assert not targets_of(covered).heat.any()
    assert (targets_of(covered).heat_weight == 1.0).all()


def test_an_empty_window_has_empty_maps_that_count() -> None:
    targets = targets_of(window([], SIDE))
    assert not _maps(targets).any()
    assert all((w == 1.0).all() for w in (targets.heat_weight, targets.cell_weight, targets.nucleus_weight))
    assert not targets.offset_weight.any()


def test_from_perfect_maps_the_service_finds_the_cells_again() -> None:
    cells = [CELL, Disk(CELL.x + 18, CELL.y, 10, 7), SMUDGED]
    shown = window(cells, SIDE)
    maps = _maps(targets_of(shown))
    assert len(find_centres(maps[:KINDS], RADIUS)) == 3
    found = cells_of_maps(maps, SIDE, SIDE, RADIUS)
    assert sorted((c.kind, round(c.centroid[0]), round(c.centroid[1])) for c in found) == sorted((c.kind, c.x, c.y) for c in cells)
    for cell in found:
        mask = np.zeros((SIDE, SIDE), bool)
        mask[cell.top : cell.top + cell.mask.shape[0], cell.left : cell.left + cell.mask.shape[1]] = cell.mask
        assert max(common_share(mask, shown.owners == number) for number in (1, 2, 3)) > 0.88
    assert maps[OFFSET_X:].shape[0] == 2


def test_stacked_targets_are_those_of_each_window() -> None:
    one, two = targets_of(window([CELL], SIDE)), targets_of(window([SMUDGED], SIDE))
    both = stack([one, two])
    for name in ("heat", "heat_weight", "cell", "cell_weight", "nucleus", "nucleus_weight", "offset", "offset_weight"):
        array = getattr(both, name)
        assert array.dtype == np.float32
        assert np.array_equal(array[0], getattr(one, name))
        assert np.array_equal(array[1], getattr(two, name))
