"""Locate the nucleated cells of an image with the locator: its scale first, then its cells.

The network runs elsewhere, in this process or in a Triton. So location is a generator: it yields what the network shall see, uint8 (h, w, 3), and is
sent the maps that the network says, float32 (CHANNELS, h / 2, w / 2); its return value are the cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from statistics import median
from typing import Final, TypeVar, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from services.patching.cells import (
    MIN_RADIUS,
    SINGLE_CELL_MAX_SIDE,
    LocatedCell,
    LocatedCells,
)
from services.patching.locator_maps import Kind, MappedCell, cells_of_maps
from services.patching.nuclear_stain import with_nuclei
from services.patching.outlines import completed
from services.patching.reduction import reduced, reduction_to
from services.patching.scale import is_believed
from services.patching.stained import MANY_RED_CELLS, RED_CELL_MICRONS, StainedImage
from services.patching.working_image import FINE_RADIUS, MULTIPLE, RED_CELL_RADIUS, WorkingImage, working_image
from services.patching.working_stain import WorkingStain

Bytes = NDArray[np.uint8]
Float = NDArray[np.float32]
Mask = NDArray[np.bool_]
Location = Generator[Bytes, Float, LocatedCells]
Result = TypeVar("Result")

SCALE_SIDE: Final = 512
"""The scale is measured on a copy of at most so many px; on a finer one where red cells have less than ``LEAST_UNIT`` px there."""
SCALE_SIDE_OF_CROP: Final = 256
"""The same for an image that may be a crop."""
LEAST_UNIT: Final = 4.0
LONGEST: Final = 1280
"""Longest side in px of what the network sees; where the red cells are so small that it would be longer, they are smaller in it."""
MOST_OF_CROP: Final = 11.0
"""Shorter side of a crop in red-cell radii, at most; published crops have 7..11."""
USUAL: Final = (0.95, 2.9)
"""Median radius of the nucleated cells of an image in red-cell radii; beyond it the scale is taken from the nucleated cells."""
TYPICAL: Final = 1.6
"""Typical radius of a nucleated cell in red-cell radii."""
GUESSES: Final = (1 / 5.5, 1 / 9, 1 / 18, 1 / 36)
"""Radius of a red cell as a share of the shorter side, where no red cell is seen; published crops have one of the first two. The coarsest comes
first, because the lobes of a nucleus look like cells on too fine a scale."""


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What is known of an image before its cells.

    Attributes:
        light: of the background, float32 (h, w, 3).
        seen: radius of the red cells in px of the image; None where none were seen.
        covered: share 0..1 of the picture that cells of any kind cover.
        ink: share 0..1 of the picture under ink, pointers and text.
        outside: bool (h, w), pixels without a picture; None where there are none.
        threshold: violet index of nuclei.
    """

    light: Float
    seen: float | None
    covered: float
    ink: float
    outside: Mask | None
    threshold: float


def survey(rgb: Bytes, *, is_field: bool = False) -> Surroundings:
    """Measure light, scale and what cannot be field, on a small copy.

    Args:
        rgb: uint8 (H, W, 3).
        is_field: known to show many cells, however small it is.
    """
    is_large = max(rgb.shape[:2]) > SINGLE_CELL_MAX_SIDE
    factor = reduction_to(SCALE_SIDE if is_large else SCALE_SIDE_OF_CROP, *rgb.shape[:2])
    found = StainedImage.of(reduced(rgb, factor), None, is_field=is_field or is_large)
    if factor > 1 and found.unit is not None and found.unit < LEAST_UNIT:
        factor = max(1, factor // 2)
        found = StainedImage.of(reduced(rgb, factor), None, is_field=is_field or is_large, light=found.light)
    unit = None if found.unit is None else found.unit * factor
    return Surroundings(found.light, unit, found.covered_share, found.ink_share, found.outside, found.threshold)


def most_seen_pixels(height: int, width: int) -> int:
    """Pixels that the network sees of an image, at most."""
    shorter, longer = sorted((height, width))
    return (LONGEST + MULTIPLE) * (math.ceil(LONGEST * shorter / longer) + MULTIPLE)


def locate(rgb: Bytes, microns_per_pixel: float | None = None, *, masks: bool = True) -> Location:
    """Find every nucleated cell.

    Args:
        rgb: uint8 (H, W, 3), sides at least 32.
        microns_per_pixel: if known; it counts where it contradicts neither the red cells nor the side of the image.
        masks: whether cells have their masks.

    Returns:
        Nucleated cells with a radius of at least ``MIN_RADIUS`` px, from top to bottom.
    """
    known = survey(rgb)
    stated = RED_CELL_MICRONS / microns_per_pixel if microns_per_pixel else None
    believed = stated if stated and is_believed(stated, known.seen, min(rgb.shape[:2])) else None
    unit = believed or (None if _shows_lobes(rgb, known.seen) else known.seen)
    found = (yield from _cells(rgb, known, unit)) if unit else (yield from _guessed(rgb, known))
    if not believed and found.cells and not USUAL[0] <= found.typical / found.unit <= USUAL[1]:
        again = yield from _cells(rgb, known, found.typical / TYPICAL)
        found = again if again.weight >= found.weight else found
    return _located(rgb, known, found, believed or known.seen, doubted=bool(stated) and believed is None, masks=masks)


def _shows_lobes(rgb: Bytes, seen: float | None) -> bool:
    """Whether what was seen as red cells of a small image may be the lobes of one nucleus: a crop is not so many red cells wide, and a field is wider."""
    return seen is not None and max(rgb.shape[:2]) <= SINGLE_CELL_MAX_SIDE and MOST_OF_CROP * seen < min(rgb.shape[:2]) < MANY_RED_CELLS * seen


@dataclass(frozen=True, eq=False)
class _Found:
    """Cells at one scale: ``unit`` is the radius of a red cell in px of the image."""

    cells: list[MappedCell]
    measured: WorkingStain
    unit: float

    @property
    def seen_as(self) -> WorkingImage:
        return self.measured.seen_as

    @property
    def nucleated(self) -> list[MappedCell]:
        return [c for c in self.cells if c.kind is Kind.NUCLEATED]

    @property
    def typical(self) -> float:
        """Median radius of the cells in px of the image."""
        return median(c.radius for c in self.cells) * self.seen_as.step_x

    @property
    def weight(self) -> float:
        """Area of the cells in px of the image, each as far as it is sure; cells of an unusual size for this scale count half.

        On too fine a scale lobes and platelets are taken for cells: these are many, but small.
        """
        sizes = (c.radius / self.seen_as.red_cell_radius for c in self.cells)
        usual = (1.0 if USUAL[0] <= s <= USUAL[1] else 0.5 for s in sizes)
        return self.seen_as.step_x * self.seen_as.step_y * sum(c.confidence * c.area * u for c, u in zip(self.cells, usual, strict=True))


def locate_window(rgb: Bytes, red_cell_radius: float | None) -> Location:
    """Find every nucleated cell of a window of a slide, without masks.

    Args:
        rgb: uint8 (H, W, 3), sides at least 32.
        red_cell_radius: of the slide, px; None where no window showed red cells.
    """
    known = survey(rgb, is_field=True)
    unit = red_cell_radius or known.seen
    found = (yield from _cells(rgb, known, unit)) if unit else (yield from _guessed(rgb, known))
    return _located(rgb, known, found, known.seen, doubted=False, masks=False)


def _located(rgb: Bytes, known: Surroundings, found: _Found, radius: float | None, *, doubted: bool, masks: bool) -> LocatedCells:
    whole = completed(found.nucleated, found.measured)
    kept = [_in_image(c, found.seen_as, rgb.shape, masks=masks) for c in whole]
    ordered = sorted((c for c in kept if c.radius >= MIN_RADIUS), key=lambda c: (c.center_y, c.center_x))
    return LocatedCells(tuple(ordered), radius, known.threshold, known.covered, doubted, known.ink, known.outside)


def _cells(rgb: Bytes, known: Surroundings, unit: float) -> Generator[Bytes, Float, _Found]:
    radius = FINE_RADIUS if max(rgb.shape[:2]) <= SINGLE_CELL_MAX_SIDE else RED_CELL_RADIUS
    unit = max(unit, radius * max(rgb.shape[:2]) / LONGEST)
    seen_as = working_image(rgb, known.light, unit, known.outside, to=radius)
    maps = yield seen_as.pixels
    measured = WorkingStain(seen_as, known.threshold)
    return _Found(with_nuclei(cells_of_maps(maps, seen_as.height, seen_as.width, radius), measured), measured, unit)


def _guessed(rgb: Bytes, known: Surroundings) -> Generator[Bytes, Float, _Found]:
    """The cells at the likeliest of several scales, and then at the scale at which they have a typical size.

    For a crop the first guess that shows a cell is enough.
    """
    best: _Found | None = None
    for share in GUESSES:
        found = yield from _cells(rgb, known, share * min(rgb.shape[:2]))
        if best is None or found.weight > best.weight:
            best = found
        if found.cells and max(rgb.shape[:2]) <= SINGLE_CELL_MAX_SIDE:
            break
    assert best is not None
    if not best.cells:
        return best
    again = yield from _cells(rgb, known, best.typical / TYPICAL)
    return again if again.cells else best


def _in_image(cell: MappedCell, seen_as: WorkingImage, shape: tuple[int, ...], *, masks: bool) -> LocatedCell:
    """A cell in px of the image."""
    step_x, step_y = seen_as.step_x, seen_as.step_y
    x, y, width, height = cv2.boundingRect(cell.mask.astype(np.uint8))
    left, top = math.floor((cell.left + x) * step_x), math.floor((cell.top + y) * step_y)
    right = min(shape[1], math.ceil((cell.left + x + width) * step_x))
    bottom = min(shape[0], math.ceil((cell.top + y + height) * step_y))
    own = cell.mask[y : y + height, x : x + width].astype(np.float32)
    mask = cv2.resize(own, (right - left, bottom - top), interpolation=cv2.INTER_LINEAR) > 0.5 if masks else None
    center_x, center_y = cell.centroid
    return LocatedCell(
        center_x=(center_x + 0.5) * step_x - 0.5,
        center_y=(center_y + 0.5) * step_y - 0.5,
        radius=cell.radius * math.sqrt(step_x * step_y),
        x=left,
        y=top,
        width=right - left,
        height=bottom - top,
        confidence=round(cell.confidence, 4),
        mask=mask,
    )


def run(location: Generator[Bytes, Float, Result], network: Callable[[Bytes], Float]) -> Result:
    """Drive a location with a network that answers at once."""
    try:
        seen = next(location)
        while True:
            seen = location.send(network(seen))
    except StopIteration as stop:
        return cast(Result, stop.value)
