"""Tests of the grid of ALL-IDB Patches."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import InvalidRequestError
from services.patching.grid import Patch, count_grid, lay_grid


@pytest.mark.parametrize(("width", "height", "count"), [(1712, 1368, 48), (2592, 1944, 117), (256, 256, 1), (447, 447, 1), (448, 256, 2)])
def test_published_counts(width: int, height: int, count: int) -> None:
    patches = lay_grid(width, height)
    assert len(patches) == count
    assert [p.number for p in patches] == list(range(1, count + 1))


def test_rows_are_outer() -> None:
    assert [(p.x, p.y) for p in lay_grid(500, 450)] == [(0, 0), (192, 0), (0, 192), (192, 192)]


@given(width=st.integers(256, 1500), height=st.integers(256, 1500), flush=st.booleans())
def test_patches_lie_inside_and_flush_ones_cover_all(width: int, height: int, flush: bool) -> None:
    patches = lay_grid(width, height, flush=flush)
    assert all(0 <= p.x <= width - 256 and 0 <= p.y <= height - 256 for p in patches)
    assert len({(p.x, p.y) for p in patches}) == len(patches)
    covered = max(p.x for p in patches) + 256, max(p.y for p in patches) + 256
    if flush:
        assert covered == (width, height)
    else:
        assert width - covered[0] < 192
        assert height - covered[1] < 192


@pytest.mark.parametrize(
    ("point", "inside"),
    [((100, 200), True), ((95, 200), True), ((94.9, 200), False), ((360, 460), True), ((360.5, 300), False), ((100, 460.5), False)],
)
def test_a_centre_belongs_within_the_tolerance(point: tuple[float, float], inside: bool) -> None:
    assert Patch(1, 100, 200).holds(point) is inside


def test_local_coordinates_stay_inside() -> None:
    patch = Patch(1, 100, 200)
    assert patch.local((130, 260)) == (30, 60)
    assert patch.local((95, 460)) == (0, 255)


def test_a_centre_in_the_middle_of_an_overlap_is_in_four_patches() -> None:
    assert sum(p.holds((220, 220)) for p in lay_grid(448, 448)) == 4


@pytest.mark.parametrize(("width", "height", "side", "overlap"), [(255, 400, 256, 0.25), (400, 400, 0, 0.25), (400, 400, 256, 1.0), (9, 9, 1, 0.9)])
def test_what_makes_no_sense_is_refused(width: int, height: int, side: int, overlap: float) -> None:
    with pytest.raises(InvalidRequestError):
        lay_grid(width, height, side, overlap)


@pytest.mark.parametrize(("width", "height"), [(256, 256), (300, 431), (1000, 257), (1713, 1368)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.75])
def test_patches_are_counted_without_laying_them(width: int, height: int, overlap: float) -> None:
    assert count_grid(width, height, 256, overlap) == len(lay_grid(width, height, 256, overlap, flush=True))
