"""Location finds the scale, asks the network, and gives cells in px of the image; the network here reads the drawing's own truth."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from services.common.phantom import CellKind, Phantom, PhantomOptions, single_cell, smear_field
from services.patching import locating
from services.patching.cells import LocatedCells
from services.patching.locating import LONGEST, Location, locate, locate_window, most_seen_pixels, run, survey
from services.patching.locator_maps import Kind
from services.patching.working_image import FINE_RADIUS, RED_CELL_RADIUS, WorkingImage, working_image
from tests.services.patching.drawn_maps import Disk, maps_of

FIELD = PhantomOptions(width=800, height=600, cells=6, cell_radius=30.0, label=False)


class Oracle:
    """A locator that knows a drawing; it says nothing where cells are so small or large that no locator was trained for them."""

    def __init__(self, drawn: Phantom, kind: Kind = Kind.NUCLEATED) -> None:
        self.drawn = drawn
        self.kind = kind
        self.seen: list[WorkingImage] = []

    def working_image(self, *arguments: Any, **named: Any) -> WorkingImage:
        """As the module makes it, and noted: the network itself is not told the scale."""
        self.seen.append(working_image(*arguments, **named))
        return self.seen[-1]

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        assert pixels is self.seen[-1].pixels
        step = self.seen[-1].step_x
        unit = self.seen[-1].red_cell_radius
        known = 0.7 * unit <= float(np.median([c.radius for c in self.drawn.cells] or [0])) / step <= 4.0 * unit
        disks = [Disk((c.center_x + 0.5) / step - 0.5, (c.center_y + 0.5) / step - 0.5, c.radius / step, self.kind) for c in self.drawn.cells]
        height, width = pixels.shape[:2]
        return maps_of(disks if known else [], height, width, unit)


def _run(location: Location, oracle: Oracle) -> LocatedCells:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(locating, "working_image", oracle.working_image)
        return run(location, oracle)


def _assert_found(location: Location, drawn: Phantom) -> None:
    found = _run(location, Oracle(drawn))
    assert len(found.cells) == len(drawn.cells)
    for cell, truth in zip(found.cells, sorted(drawn.cells, key=lambda c: c.center_y), strict=True):
        assert (cell.center_x, cell.center_y) == pytest.approx((truth.center_x, truth.center_y), abs=0.12 * truth.radius)
        assert cell.radius == pytest.approx(truth.radius, rel=0.08)
        assert cell.x <= truth.center_x <= cell.x + cell.width


def test_cells_of_a_field_are_in_px_of_the_image() -> None:
    drawn = smear_field(3, FIELD)
    _assert_found(locate(drawn.image), drawn)


def test_a_crop_without_red_cells_is_located_at_a_scale_that_is_guessed() -> None:
    drawn = single_cell(1, CellKind.BLAST, 264, 60.0, replace(FIELD, red_cell_density=0.0, platelets=0))
    _assert_found(locate(drawn.image), drawn)


def test_a_small_image_is_seen_finer() -> None:
    field, crop = Oracle(smear_field(3, FIELD)), Oracle(single_cell(1, CellKind.BLAST, 264, 60.0, FIELD))
    for oracle in (field, crop):
        _run(locate(oracle.drawn.image), oracle)
    assert {seen.red_cell_radius for seen in field.seen} == {RED_CELL_RADIUS}
    assert {seen.red_cell_radius for seen in crop.seen} == {FINE_RADIUS}


def test_masks_cover_the_cells_only_where_they_are_wanted() -> None:
    drawn = smear_field(4, FIELD)
    with_masks = _run(locate(drawn.image), Oracle(drawn)).cells
    for cell in with_masks:
        assert cell.mask is not None
        assert cell.mask.shape == (cell.height, cell.width)
        assert np.sqrt(cell.mask.sum() / np.pi) == pytest.approx(cell.radius, rel=0.05)
    assert all(c.mask is None for c in _run(locate(drawn.image, masks=False), Oracle(drawn)).cells)


def test_smudged_cells_are_no_cells() -> None:
    drawn = smear_field(3, FIELD)
    assert _run(locate(drawn.image), Oracle(drawn, Kind.SMUDGED)).cells == ()


def test_a_stated_scale_counts_unless_the_red_cells_contradict_it() -> None:
    drawn = smear_field(3, FIELD)
    seen = survey(drawn.image).seen
    assert seen is not None
    near, far = _run(locate(drawn.image, 3.75 / (1.1 * seen)), Oracle(drawn)), _run(locate(drawn.image, 3.75 / (3.0 * seen)), Oracle(drawn))
    assert (near.scale_is_doubted, far.scale_is_doubted) == (False, True)
    assert near.red_cell_radius == pytest.approx(1.1 * seen)
    assert far.red_cell_radius == pytest.approx(seen)


def test_a_window_of_a_slide_takes_the_scale_of_the_slide() -> None:
    drawn = smear_field(5, FIELD)
    oracle = Oracle(drawn)
    _run(locate_window(drawn.image, 20.0), oracle)
    assert [seen.pixels.shape for seen in oracle.seen] == [(216, 280, 3)]


def test_what_the_network_sees_is_bounded() -> None:
    drawn = smear_field(6, replace(FIELD, width=3000, height=300, cells=2))
    oracle = Oracle(drawn)
    _run(locate_window(drawn.image, 2.0), oracle)
    assert max(oracle.seen[0].pixels.shape) <= LONGEST
    height, width = oracle.seen[0].pixels.shape[:2]
    assert height * width <= most_seen_pixels(300, 3000)


def test_an_empty_field_has_no_cells() -> None:
    drawn = smear_field(7, replace(FIELD, cells=0))
    assert _run(locate(drawn.image), Oracle(drawn)).cells == ()
