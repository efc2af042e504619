"""Patches at the scale of a network, and the cells that it sees."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import InvalidImageError
from services.common.phantom import PhantomOptions, smear_field
from services.patching import patches as patches_module
from services.patching.activation_peaks import Peak
from services.patching.cells import LocatedCell, locate_cells
from services.patching.grid import Patch
from services.patching.patches import UNMEASURED_CONFIDENCE, PatchActivation, cells_at, cut_patches, find_peaks, scaled_side


@pytest.mark.parametrize(
    ("red_cell", "microns", "expected"),
    [(25.0, None, 256), (50.0, None, 512), (10.0, None, 102), (None, None, 256), (50.0, 0.15, 256), (1.0, None, 64), (999.0, None, 1000)],
)
def test_the_side_follows_the_red_cells(red_cell: float | None, microns: float | None, expected: int) -> None:
    assert scaled_side(256, 25.0, red_cell, microns, 1000) == expected


@given(st.integers(32, 4096), st.floats(0.1, 500), st.one_of(st.none(), st.floats(0.1, 500)), st.integers(32, 5000))
def test_a_patch_fits_into_its_field(nominal: int, nominal_red: float, red: float | None, shortest: int) -> None:
    assert min(32, shortest) <= scaled_side(nominal, nominal_red, red, None, shortest) <= shortest


def test_patches_cover_the_field_at_the_side_of_the_network() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (300, 430, 3), np.uint8)
    covered = np.zeros((300, 430), bool)
    for patch, pixels in cut_patches(rgb, 128, 0.25, 128):
        assert np.array_equal(pixels, rgb[patch.y : patch.y + 128, patch.x : patch.x + 128])
        covered[patch.y : patch.y + 128, patch.x : patch.x + 128] = True
    assert covered.all()
    assert all(pixels.shape == (64, 64, 3) for _, pixels in cut_patches(rgb, 128, 0.25, 64))


def test_too_many_patches_are_refused() -> None:
    with pytest.raises(InvalidImageError) as caught:
        list(cut_patches(np.zeros((3000, 3000, 3), np.uint8), 32, 0.25, 32))
    assert caught.value.reason == "IMAGE_TOO_LARGE"


def test_one_cell_seen_in_four_patches_is_one() -> None:
    """A cell at (200, 200) px is bright in each of the patches that overlap there."""
    judged = []
    for y in (0, 96):
        for x in (0, 96):
            activations = np.full((16, 16, 2), -5.0, np.float32)
            activations[int((200 - y) // 16), int((200 - x) // 16), 1] = 3.0 + 0.01 * x
            judged.append(PatchActivation(Patch(1, x, y, 256), activations))
    found = find_peaks(judged, 0.0, 40.0)
    assert len(found) == 1
    assert np.hypot(found[0].x - 200, found[0].y - 200) < 16


def test_cells_are_measured_where_the_stain_shows_them() -> None:
    phantom = smear_field(4, PhantomOptions(width=800, height=600, cells=6, touching=0.0))
    located = locate_cells(phantom.image)
    seen = [Peak(t.center_x + 8, t.center_y - 8, 0, 2.0) for t in phantom.cells[:4]]
    cells = cells_at(seen, located.cells, located.red_cell_radius, 600, 800)
    assert len(cells) == 4
    assert set(cells) <= set(located.cells)


def test_a_cell_that_only_the_network_sees_has_a_usual_size_and_little_confidence() -> None:
    cells = cells_at([Peak(5, 300, 0, 2.0), Peak(20, 310, 1, 1.0)], (), 20.0, 600, 800)
    assert len(cells) == 1
    (cell,) = cells
    assert (cell.radius, cell.confidence) == (34.0, UNMEASURED_CONFIDENCE)
    assert cell.x == 0
    assert cell.x + cell.width == 40


@given(st.lists(st.tuples(st.floats(0, 799), st.floats(0, 599)), max_size=12))
def test_cells_lie_inside_and_apart(positions: list[tuple[float, float]]) -> None:
    cells = cells_at([Peak(x, y, 0, 1.0) for x, y in positions], (), None, 600, 800)
    assert len(cells) <= len(positions)
    for cell in cells:
        assert 0 <= cell.x < cell.x + cell.width <= 800
        assert 0 <= cell.y < cell.y + cell.height <= 600
    assert [c.center_y for c in cells] == sorted(c.center_y for c in cells)


def test_patches_are_bounded_by_their_pixels_before_one_is_laid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patches_module, "lay_grid", None)
    rgb = np.broadcast_to(np.zeros(3, np.uint8), (10_000, 10_000, 3))
    for side, overlap, target in ((32, 0.75, 32), (2048, 0.75, 128), (512, 0.25, 1024)):
        with pytest.raises(InvalidImageError) as caught:
            cut_patches(rgb, side, overlap, target)
        assert caught.value.reason == "IMAGE_TOO_LARGE"


def test_the_largest_field_is_cut_with_the_overlap_of_the_papers() -> None:
    rgb = np.broadcast_to(np.zeros(3, np.uint8), (10_000, 10_000, 3))
    patch, pixels = next(cut_patches(rgb, 1024, 0.25, 128))
    assert (patch.x, patch.y, pixels.shape) == (0, 0, (128, 128, 3))


def _checks(places: int, strength: float) -> np.ndarray:
    activations = np.full((places, places, 2), -5.0, np.float32)
    activations[::2, ::2] = strength
    return activations


def test_peaks_are_bounded_and_the_strongest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patches_module, "MAX_PEAKS", 100)
    judged = [PatchActivation(Patch(i, 3000 * i, 0, 2048), _checks(32, 1.0 + 0.1 * i)) for i in range(6)]
    looked_at: list[int] = []

    def merge(found: list[Peak], radius: float) -> tuple[Peak, ...]:
        looked_at.append(len(found))
        return tuple(found)

    monkeypatch.setattr(patches_module, "merge", merge)
    found = find_peaks(judged, 0.0, 1.0)
    assert looked_at == [100]
    assert {round(p.activation, 4) for p in found} == {1.5}
    assert [p.activation for p in find_peaks(judged[::-1], 0.0, 1.0)] == [p.activation for p in found]


def _plain_cells_at(found: list[Peak], located: list[LocatedCell], red_cell: float) -> tuple[LocatedCell, ...]:
    free, cells = list(located), []
    for peak in found:
        near = min(free, key=lambda c: math.hypot(c.center_x - peak.x, c.center_y - peak.y), default=None)
        if near is not None and math.hypot(near.center_x - peak.x, near.center_y - peak.y) <= near.radius:
            free.remove(near)
            cells.append(near)
        elif not any(math.hypot(c.center_x - peak.x, c.center_y - peak.y) <= c.radius for c in cells):
            cells.append(patches_module._usual_cell(peak, 1.7 * red_cell, 200, 200))
    return tuple(sorted(cells, key=lambda c: (c.center_y, c.center_x)))


_PLACE = st.integers(0, 40).map(lambda n: 5.0 * n)
_CELLS = st.lists(st.builds(LocatedCell, _PLACE, _PLACE, st.sampled_from([5.0, 10.0, 25.0]), *[st.just(0)] * 4, st.just(1.0)), max_size=12)


@given(st.lists(st.builds(Peak, _PLACE, _PLACE, st.just(0), st.just(1.0)), max_size=20), _CELLS)
def test_cells_at_peaks_are_those_of_every_comparison(found: list[Peak], located: list[LocatedCell]) -> None:
    assert cells_at(found, located, 6.0, 200, 200) == _plain_cells_at(found, located, 6.0)
