"""Locate the nucleated cells of an image (classical, from the stain alone)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.patching import stain
from services.patching.candidates import Candidate, nuclei_of_crop, nuclei_of_field
from services.patching.nucleus import Nucleus
from services.patching.reduction import reduced, reduction_to
from services.patching.scale import is_believed
from services.patching.stained import RED_CELL_MICRONS, StainedImage

Bytes = NDArray[np.uint8]
Mask = NDArray[np.bool_]

WORKING_SIDE: Final = 1024
"""Images with a longer side are located on a copy reduced by an integer factor to at most this many px."""
MIN_RADIUS: Final = 4.0
"""Smallest cell radius in px that is reported."""
MAX_MEASURED: Final = 12
"""Most pixels of the surroundings of all nuclei, in pixels of the working copy. Of some hundred real and drawn images the most was 4.6."""
SINGLE_CELL_MAX_SIDE: Final = 512
"""Longest side in px of an image that may be taken for a crop around one cell; published crops have 120..450."""
SINGLE_CELL_MIN_RADIUS: Final = 0.11
"""Least radius of the central cell of such a crop, as a share of its shorter side."""
SINGLE_CELL_MAX_OFFSET: Final = 0.2
"""Farthest centre of that cell from the image centre, as a share of the shorter side."""

MIN_CELLS_OF_FIELD: Final = 3
"""A small image that looks like one cell among many red cells is a field if, located as one, it shows so many cells."""


@dataclass(frozen=True)
class LocatedCell:
    """One nucleated cell, in pixels of the image (pixel centres at integers, x right, y down).

    Attributes:
        center_x, center_y: centroid of the whole cell.
        radius: sqrt(area / pi) of the whole cell, cytoplasm included.
        x, y, width, height: bounding box, clipped to the image.
        confidence: 0..1, how sure it is that this is a nucleated cell; a rule of contrast, fullness and size, not a probability.
        mask: bool (height, width), the whole cell within its box; None where it was not measured.
    """

    center_x: float
    center_y: float
    radius: float
    x: int
    y: int
    width: int
    height: int
    confidence: float
    mask: Mask | None = field(default=None, compare=False, repr=False)

    def moved(self, x: int, y: int) -> LocatedCell:
        """The cell in px of an image in which its own image lies at (x, y), without its mask."""
        return replace(self, center_x=self.center_x + x, center_y=self.center_y + y, x=self.x + x, y=self.y + y, mask=None)


@dataclass(frozen=True)
class LocatedCells:
    """The cells of one image.

    Attributes:
        cells: from top to bottom.
        red_cell_radius: typical radius of the red cells in px; None where they were not seen.
        threshold: violet index above which a pixel was taken for nucleus.
        covered: share 0..1 of the picture that cells of any kind cover.
        scale_is_doubted: whether the scale that was given contradicts the red cells, so that theirs was used.
        ink: share 0..1 of a field under ink, pointers and text.
        outside: bool (h, w), pixels of the working copy without a picture; None where there are none.
    """

    cells: tuple[LocatedCell, ...]
    red_cell_radius: float | None
    threshold: float
    covered: float
    scale_is_doubted: bool = False
    ink: float = 0.0
    outside: Mask | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class WindowOfSlide:
    """Values of the whole slide that a window uses.

    Attributes:
        reduction: whole factor by which the working copy is smaller.
        threshold: violet index of nuclei; None where no window showed any: then a share of this window's peak.
    """

    reduction: int
    threshold: float | None


def locate_cells(rgb: Bytes, microns_per_pixel: float | None = None, window: WindowOfSlide | None = None, *, masks: bool = True) -> LocatedCells:
    """Find every nucleated cell, in an amount of work that the size of the working copy bounds.

    Args:
        rgb: uint8 (H, W, 3), sides at least 32.
        microns_per_pixel: micrometres per pixel if known; else, where it contradicts the red cells or is absurd (``scale.is_believed``), the scale is taken from the red cells.
        window: given where the image is a window of a slide, which is a field however small it is.
        masks: whether cells have their masks, which take as many bytes as their boxes have px of the image.

    Returns:
        Cells with a radius of at least ``MIN_RADIUS`` px.
    """
    factor = _reduction(*rgb.shape[:2]) if window is None else window.reduction
    small = reduced(rgb, factor)
    scale = microns_per_pixel and microns_per_pixel * factor
    if window is not None:
        image = StainedImage.of(small, scale, is_field=True, threshold=window.threshold)
        return _cells(image, nuclei_of_field(image), factor, rgb.shape, masks=masks)
    unscaled = StainedImage.of(small, None, is_field=True) if scale else None
    stated = RED_CELL_MICRONS / scale if scale else None
    believed = scale if stated and unscaled is not None and is_believed(stated, unscaled.unit, min(small.shape[:2])) else None
    found = _located(small, believed, unscaled, factor, rgb.shape, masks=masks)
    return replace(found, scale_is_doubted=bool(scale) and believed is None)


def _located(small: Bytes, scale: float | None, unscaled: StainedImage | None, factor: int, shape: tuple[int, ...], *, masks: bool) -> LocatedCells:
    of_crop = _located_as_crop(small, scale, masks=masks) if max(shape[:2]) <= SINGLE_CELL_MAX_SIDE else None
    if of_crop is not None and not of_crop.may_be_field:
        return of_crop.cells
    field = StainedImage.of(small, scale, is_field=True) if unscaled is None else unscaled.rescaled(scale)
    of_field = _cells(field, nuclei_of_field(field), factor, shape, masks=masks)
    if of_crop is not None and of_crop.is_single and len(of_field.cells) < MIN_CELLS_OF_FIELD:
        return of_crop.cells
    return of_field


@dataclass(frozen=True)
class _OfCrop:
    """A small image located as a crop: its cells, whether they look like one cell, and whether it may be a field after all."""

    cells: LocatedCells
    is_single: bool
    may_be_field: bool


def working_pixels(height: int, width: int) -> int:
    """Pixels of the working copy of an image."""
    factor = _reduction(height, width)
    return (height // factor) * (width // factor)


def _reduction(height: int, width: int) -> int:
    return reduction_to(WORKING_SIDE, height, width)


def _located_as_crop(rgb: Bytes, microns_per_pixel: float | None, *, masks: bool) -> _OfCrop:
    image = StainedImage.of(rgb, microns_per_pixel, is_field=False)
    cells = _cells(image, nuclei_of_crop(image), 1, rgb.shape, masks=masks)
    is_single = looks_like_single_cell(cells.cells, *rgb.shape[:2])
    scale_is_known = image.first_unit is not None
    return _OfCrop(cells, is_single, image.shows_many_red_cells or not (is_single or (cells.cells and scale_is_known)))


def _cells(image: StainedImage, found: list[Candidate], factor: int, shape: tuple[int, ...], *, masks: bool) -> LocatedCells:
    claimed = np.zeros(image.violet.shape, np.int32)
    nuclei = _measurable(found, claimed.shape)
    for index, candidate in enumerate(nuclei, start=1):
        claimed[candidate.nucleus.window][candidate.nucleus.mask] = index
    cells = [measure_nucleus(c.nucleus, c.confidence, i, claimed, image) for i, c in enumerate(nuclei, start=1)]
    scaled = [_scale(c if masks else replace(c, mask=None), factor, shape) for c in cells]
    kept = sorted((c for c in scaled if c.radius >= MIN_RADIUS), key=lambda c: (c.center_y, c.center_x))
    radius = None if image.seen is None else image.seen * factor
    return LocatedCells(tuple(kept), radius, image.threshold, image.covered_share, ink=image.ink_share, outside=image.outside)


def measure_red_cells(rgb: Bytes, reduction: int) -> float | None:
    """Radius of the red cells of a field in px; None where they are not seen.

    Args:
        rgb: uint8 (H, W, 3), sides at least 32 after the reduction.
        reduction: whole factor by which the working copy is smaller.
    """
    unit = StainedImage.of(reduced(rgb, reduction), None, is_field=True).unit
    return None if unit is None else unit * reduction


def central_cell(cells: tuple[LocatedCell, ...], height: int, width: int) -> LocatedCell | None:
    """The cell that a single-cell image means: the one that covers the image centre or comes nearest to it."""
    if not cells:
        return None
    x, y = (width - 1) / 2, (height - 1) / 2
    return min(cells, key=lambda c: math.hypot(c.center_x - x, c.center_y - y) - 0.5 * c.radius)


def looks_like_single_cell(cells: tuple[LocatedCell, ...], height: int, width: int) -> bool:
    """Tell a crop around one cell from a field: a small image whose central cell is large in it."""
    cell = central_cell(cells, height, width)
    side = min(height, width)
    if cell is None or max(height, width) > min(SINGLE_CELL_MAX_SIDE, 1.5 * side):
        return False
    offset = math.hypot(cell.center_x - (width - 1) / 2, cell.center_y - (height - 1) / 2)
    return cell.radius > SINGLE_CELL_MIN_RADIUS * side and offset < SINGLE_CELL_MAX_OFFSET * side


def _measurable(nuclei: list[Candidate], shape: tuple[int, ...]) -> list[Candidate]:
    """The nuclei whose surroundings have at most ``MAX_MEASURED`` px for each px of the image, the smallest first: no nuclei of cells need more."""
    areas = np.array([(w[0].stop - w[0].start) * (w[1].stop - w[1].start) for w in (_surroundings(n.nucleus, shape) for n in nuclei)], np.int64)
    order = np.argsort(areas, kind="stable")
    kept = order[np.cumsum(areas[order]) <= MAX_MEASURED * shape[0] * shape[1]]
    return [nuclei[i] for i in np.sort(kept)]


def _surroundings(nucleus: Nucleus, shape: tuple[int, ...]) -> tuple[slice, slice]:
    height, width = nucleus.mask.shape
    margin = math.ceil(2.2 * max(nucleus.radius, 0.5 * max(height, width))) + 3
    bottom, right = min(shape[0], nucleus.top + height + margin), min(shape[1], nucleus.left + width + margin)
    return np.s_[max(0, nucleus.top - margin) : bottom, max(0, nucleus.left - margin) : right]


def measure_nucleus(nucleus: Nucleus, confidence: float, index: int, claimed: NDArray[np.int32], image: StainedImage) -> LocatedCell:
    """Measure the whole cell of a nucleus, in px of the working copy.

    Args:
        nucleus: of the cell.
        confidence: 0..1, of the cell.
        index: number of the nucleus in ``claimed``.
        claimed: int32 (H, W), numbers of all nuclei: px nearer to another nucleus are not of this cell; 0 where none is.
        image: the working copy.

    Returns:
        The cell with its mask; a cell of radius 0 where nothing was left for it.
    """
    window = _surroundings(nucleus, claimed.shape)
    top, left = window[0].start, window[1].start
    owners = claimed[window]
    own = owners == index
    cell = stain.cell_mask(image.density[window], own, image.red_cells[window]) if own.any() else own
    others = (owners > 0) & ~own
    if others.any():
        to_own = cv2.distanceTransform((~own).astype(np.uint8), cv2.DIST_L2, 5)
        to_others = cv2.distanceTransform((~others).astype(np.uint8), cv2.DIST_L2, 5)
        cell &= to_own <= to_others
    rows, columns = np.nonzero(cell)
    if rows.size == 0:
        return LocatedCell(0, 0, 0, 0, 0, 0, 0, 0)
    box = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    return LocatedCell(
        center_x=float(columns.mean()) + left,
        center_y=float(rows.mean()) + top,
        radius=stain.equivalent_radius(cell),
        x=int(columns.min()) + left,
        y=int(rows.min()) + top,
        width=int(np.ptp(columns)) + 1,
        height=int(np.ptp(rows)) + 1,
        confidence=confidence,
        mask=cell[box].copy(),
    )


def _scale(cell: LocatedCell, factor: int, shape: tuple[int, ...]) -> LocatedCell:
    shift = (factor - 1) / 2
    x, y = cell.x * factor, cell.y * factor
    width, height = min(cell.width * factor, shape[1] - x), min(cell.height * factor, shape[0] - y)
    mask = cell.mask if cell.mask is None or factor == 1 else cell.mask.repeat(factor, axis=0).repeat(factor, axis=1)[:height, :width]
    return LocatedCell(
        cell.center_x * factor + shift,
        cell.center_y * factor + shift,
        cell.radius * factor,
        x,
        y,
        width,
        height,
        cell.confidence,
        mask,
    )
