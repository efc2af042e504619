"""What cannot be field: outside of the eyepiece, pages, ink, pointers, text."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from services.common.phantom import PhantomOptions, smear_field
from services.patching import stain
from services.patching.cells import LocatedCell, locate_cells
from services.patching.light import background_light
from services.patching.quality import measure_exposure
from services.patching.unreadable import Unreadable, unreadable
from training.evaluation.obstructions import INKS

Bytes = NDArray[np.uint8]
FIELD = smear_field(7, PhantomOptions(width=800, height=600, cells=9, light=0.4, brightness=0.85, label=False)).image
BASE = locate_cells(FIELD).cells


def _found(image: Bytes) -> Unreadable | None:
    return unreadable(image, stain.optical_density(image, background_light(image, is_field=True)))


def _drawn(draw: Callable[[Bytes, tuple[int, int, int]], object], colour: tuple[int, int, int]) -> tuple[Bytes, NDArray[np.bool_]]:
    """The field with something drawn on it, and where."""
    image, where = FIELD.copy(), np.zeros_like(FIELD)
    draw(image, colour)
    draw(where, (255, 255, 255))
    return image, np.asarray(where.max(axis=2) > 0, bool)


def _outside_circle(share: float, colour: tuple[int, int, int], soft: float = 0.0) -> tuple[Bytes, NDArray[np.bool_]]:
    """The field in the circle of an eyepiece, and what lies outside."""
    rows, columns = np.indices(FIELD.shape[:2])
    distance = np.hypot(rows - 300, columns - 400) - share * 600
    part = np.clip(distance / soft, 0, 1) if soft else (distance > 0).astype(float)
    image = FIELD * (1 - part[..., None]) + np.array(colour) * part[..., None]
    return image.astype(np.uint8), distance > -4


def _free(covered: NDArray[np.bool_]) -> list[LocatedCell]:
    """Cells of the field that nothing covers."""
    return [c for c in BASE if not covered[max(0, c.y - 8) : c.y + c.height + 8, max(0, c.x - 8) : c.x + c.width + 8].any()]


def _is_among(cell: LocatedCell, cells: tuple[LocatedCell, ...]) -> bool:
    return any(math.hypot(cell.center_x - c.center_x, cell.center_y - c.center_y) < 0.5 * cell.radius for c in cells)


def _assert_same_cells(image: Bytes, covered: NDArray[np.bool_]) -> None:
    found, free = locate_cells(image).cells, _free(covered)
    assert len(free) >= 3
    assert [c for c in free if not _is_among(c, found)] == []
    assert [c for c in found if not _is_among(c, BASE)] == []


@pytest.mark.parametrize("seed", range(5))
def test_a_field_is_readable(seed: int) -> None:
    assert _found(smear_field(seed, PhantomOptions(width=640, height=480, cells=2 * seed, label=False, stain=1.3)).image) is None


def test_a_field_whose_background_is_saturated_is_readable() -> None:
    bright = np.clip(FIELD.astype(float) * 1.8, 0, 255).astype(np.uint8)
    assert (bright == 255).mean() > 0.2
    assert _found(bright) is None


@pytest.mark.parametrize("colour", INKS)
def test_a_line_neither_hides_cells_nor_becomes_cells(colour: str) -> None:
    def line(image: Bytes, ink: tuple[int, int, int]) -> None:
        cv2.line(image, (60, 500), (740, 150), ink, 7, cv2.LINE_AA)

    image, covered = _drawn(line, INKS[colour])
    seen = _found(image)
    assert seen is not None
    assert 0.8 < seen.ink / covered.mean() < 2.0
    assert not seen.mask.any(), "a thin line is filled in"
    _assert_same_cells(image, covered)


@pytest.mark.parametrize("colour", ["black", "red", "green", "yellow"])
def test_text_and_pointers_do_not_become_cells(colour: str) -> None:
    def notes(image: Bytes, ink: tuple[int, int, int]) -> None:
        cv2.putText(image, "20 um 100x", (20, 580), cv2.FONT_HERSHEY_SIMPLEX, 1.2, ink, 3, cv2.LINE_AA)
        cv2.arrowedLine(image, (240, 120), (330, 200), ink, 5, cv2.LINE_AA)

    _assert_same_cells(*_drawn(notes, INKS[colour]))


def test_a_stroke_of_a_pen_is_no_cell_and_counts_as_ink() -> None:
    stroke = np.zeros(FIELD.shape[:2], np.float32)
    cv2.ellipse(stroke, (400, 300), (330, 230), 0, 180, 300, 1.0, 30)
    soft = cv2.GaussianBlur(stroke, (0, 0), 4.0)[..., None] * 0.9
    image = (FIELD * (1 - soft) + np.array((15, 90, 45)) * soft).astype(np.uint8)
    seen = _found(image)
    assert seen is not None
    assert seen.ink > 0.03
    assert [c for c in locate_cells(image).cells if not _is_among(c, BASE)] == []


@pytest.mark.parametrize(("colour", "soft"), [((0, 0, 0), 0.0), ((6, 4, 4), 40.0), ((255, 255, 255), 0.0), ((120, 120, 120), 0.0)])
def test_what_lies_outside_the_eyepiece_is_no_field(colour: tuple[int, int, int], soft: float) -> None:
    image, outside = _outside_circle(0.55, colour, soft)
    seen = _found(image)
    assert seen is not None
    assert seen.ink == 0.0
    assert (seen.mask & outside).sum() > 0.75 * outside.sum()
    located = locate_cells(image)
    free = _free(np.asarray(cv2.dilate(outside.astype(np.uint8), np.ones((25, 25))) > 0, bool))
    assert len(free) >= 3
    assert [c for c in free if not _is_among(c, located.cells)] == []
    assert located.covered == pytest.approx(locate_cells(FIELD).covered, abs=0.12), "a share of the picture"
    exposure = measure_exposure(image, located.outside)
    assert max(exposure.over, exposure.under) < 0.02
