"""Where the network is in doubt about cytoplasm the stain decides; it takes nothing of a neighbour and nothing of the background."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from services.patching import outlines
from services.patching.locator_maps import Kind, MappedCell
from services.patching.outlines import completed
from services.patching.working_image import BACKGROUND, WorkingImage
from services.patching.working_stain import WorkingStain

SIDE = 96
CENTRE, NUCLEUS, CELL = 48, 9.0, 15.0
NUCLEAR, PLASMA, RED = (120, 60, 150), (190, 175, 215), (215, 140, 140)
SMOOTHED = 0.02
"""Share of a mask that its smoothing may change."""
THRESHOLD = 0.4
"""Violet index; that of the nucleus is 1.8, of the others at most 0.3."""


def _disk(radius: float, x: float = CENTRE, y: float = CENTRE) -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return np.asarray(np.hypot(columns - x, rows - y) <= radius)


def _seen() -> WorkingStain:
    """A cell with pale cytoplasm, and a red cell that touches it to the right."""
    pixels = np.full((SIDE, SIDE, 3), BACKGROUND, np.uint8)
    pixels[_disk(8.0, CENTRE + CELL + 7)] = RED
    pixels[_disk(8.0, 15, 15)] = RED
    pixels[_disk(CELL)] = PLASMA
    pixels[_disk(NUCLEUS)] = NUCLEAR
    blurred = np.asarray(cv2.GaussianBlur(pixels, (0, 0), 0.7), np.uint8)
    return WorkingStain(WorkingImage(blurred, SIDE, SIDE, 1.0, 1.0), THRESHOLD)


def _cell(sure: float, possible: float) -> MappedCell:
    box = np.s_[20:76, 20:76]
    return MappedCell(Kind.NUCLEATED, 0.9, 20, 20, _disk(sure)[box], _disk(possible)[box], _disk(NUCLEUS)[box])


def test_pale_cytoplasm_is_added() -> None:
    (cell,) = completed([_cell(11.0, 22.0)], _seen())
    assert cell.radius == pytest.approx(CELL, abs=0.8)
    assert cell.centroid == pytest.approx((CENTRE, CENTRE), abs=0.6)


def test_nothing_is_added_that_cannot_be_of_the_cell() -> None:
    cell = _cell(11.0, 22.0)
    possible = cell.possible.copy()
    possible[:, : CENTRE - 20] = cell.mask[:, : CENTRE - 20]
    (half,) = completed([replace(cell, possible=possible)], _seen())
    assert (half.mask & ~possible).sum() <= SMOOTHED * half.area
    assert half.mask[:, CENTRE - 20 :].sum() > cell.mask[:, CENTRE - 20 :].sum()


def test_what_is_sure_stays() -> None:
    sure = _cell(18.0, 22.0)
    (cell,) = completed([sure], _seen())
    assert (sure.mask & ~cell.mask).sum() <= SMOOTHED * sure.area


@pytest.mark.parametrize("cell", [_cell(15.0, 15.2), replace(_cell(11.0, 22.0), nucleus=np.zeros((56, 56), bool))])
def test_the_stain_is_not_asked_without_doubt_or_without_a_nucleus(cell: MappedCell) -> None:
    assert completed([cell], _seen()) == [cell]


def test_of_very_many_cells_the_stain_is_asked_for_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlines, "MOST", 1)
    doubtful = _cell(11.0, 22.0)
    first, second = completed([doubtful, doubtful], _seen())
    assert first.area > doubtful.area
    assert second is doubtful


def test_a_cell_at_the_border_is_completed_within_the_image() -> None:
    seen = _seen().seen_as
    shifted = WorkingImage(np.ascontiguousarray(seen.pixels[:, CENTRE - 4 :]), SIDE, SIDE - CENTRE + 4, 1.0, 1.0)
    box = np.s_[20:76, 0:32]
    whole = [_disk(radius)[:, CENTRE - 4 :][box] for radius in (11.0, 22.0, NUCLEUS)]
    (cell,) = completed([MappedCell(Kind.NUCLEATED, 0.9, 0, 20, *whole)], WorkingStain(shifted, THRESHOLD))
    expected = _disk(CELL)[:, CENTRE - 4 :].sum()
    assert cell.area == pytest.approx(expected, rel=0.1)
