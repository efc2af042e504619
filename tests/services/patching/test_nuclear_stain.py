"""Red cells of a colour that a locator does not know are no nucleated cells; pale and blue-black nuclei are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from services.patching.locator_maps import Kind, MappedCell
from services.patching.nuclear_stain import with_nuclei
from services.patching.working_image import BACKGROUND, WorkingImage
from services.patching.working_stain import WorkingStain

SIDE, THRESHOLD = 96, 0.6
VIOLET, PALE, RED, BLUE_RED, BLACK = (120, 60, 150), (175, 120, 180), (215, 140, 140), (150, 165, 190), (30, 40, 45)


def _disk(x: int, y: int, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return np.asarray(np.hypot(columns - x, rows - y) <= radius)


def _measured(colour: tuple[int, int, int]) -> WorkingStain:
    """A mass of a colour in the middle, and red cells in the corners."""
    pixels = np.full((SIDE, SIDE, 3), BACKGROUND, np.uint8)
    for x, y in ((12, 12), (12, 84), (84, 12), (84, 84)):
        pixels[_disk(x, y, 7)] = RED
    pixels[_disk(48, 48, 10)] = colour
    return WorkingStain(WorkingImage(pixels, SIDE, SIDE, 1.0, 1.0), THRESHOLD)


def _cell(*, nucleus: bool = True) -> MappedCell:
    box = np.s_[34:63, 34:63]
    mask = _disk(48, 48, 12)[box]
    return MappedCell(Kind.NUCLEATED, 0.8, 34, 34, mask, mask, _disk(48, 48, 9)[box] & nucleus)


@pytest.mark.parametrize(("colour", "kept"), [(VIOLET, True), (PALE, True), (BLACK, True), (RED, False), (BLUE_RED, False)])
@pytest.mark.parametrize("nucleus", [True, False])
def test_a_cell_has_a_nucleus_that_is_violet_or_very_dark(colour: tuple[int, int, int], kept: bool, nucleus: bool) -> None:
    assert bool(with_nuclei([_cell(nucleus=nucleus)], _measured(colour))) is kept


def test_other_kinds_are_not_asked() -> None:
    smudged = replace(_cell(), kind=Kind.SMUDGED)
    assert with_nuclei([smudged], _measured(RED)) == [smudged]


def test_without_red_cells_only_violet_counts() -> None:
    pixels = np.full((SIDE, SIDE, 3), BACKGROUND, np.uint8)
    measured = WorkingStain(WorkingImage(pixels, SIDE, SIDE, 1.0, 1.0), THRESHOLD)
    assert measured.red_cell_density is None
    assert with_nuclei([_cell()], measured) == []
