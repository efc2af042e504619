"""The patches of a field at the scale that a network of patches was trained for, and the cells that this network sees."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.common.errors import InvalidImageError
from services.patching.activation_peaks import Peak, merge, peaks
from services.patching.cells import MAX_RADIUS, MIN_RADIUS, LocatedCell
from services.patching.grid import Patch, lay_grid
from services.patching.patch_input import patch_input
from services.patching.stained import RED_CELL_MICRONS

Bytes = NDArray[np.uint8]

SCALE_RANGE: Final = (0.25, 4.0)
"""Factors by which a patch may differ from its nominal side; a scale beyond them is clipped to them."""
WHITE_TO_RED_CELL: Final = 1.7
"""Radius of a nucleated cell, in radii of a red cell, where only the network sees it and nothing can be measured."""
UNMEASURED_CONFIDENCE: Final = 0.3
"""Confidence of such a cell."""
MIN_PATCH: Final = 32
MAX_PATCHES: Final = 2048


@dataclass(frozen=True)
class PatchActivation:
    """Class activations of a network on one patch.

    Attributes:
        patch: the square, px of the field.
        activations: float32 (h, w, 2), logits of blast and other nucleated cell by place.
    """

    patch: Patch
    activations: NDArray[np.float32]


def scaled_side(nominal_side: int, nominal_red_cell: float, red_cell: float | None, microns_per_pixel: float | None, shortest: int) -> int:
    """Side in px of the patches of a field.

    Args:
        nominal_side: at the nominal scale.
        nominal_red_cell: radius of the red cells in px at the nominal scale.
        red_cell: their radius in this field; None where they were not seen.
        microns_per_pixel: if known; then it decides.
        shortest: shorter side of the field, which a patch does not exceed.
    """
    radius = RED_CELL_MICRONS / microns_per_pixel if microns_per_pixel else red_cell
    factor = 1.0 if radius is None else float(np.clip(radius / nominal_red_cell, *SCALE_RANGE))
    return int(np.clip(round(nominal_side * factor), min(MIN_PATCH, shortest), shortest))


def cut_patches(rgb: Bytes, patch_side: int, overlap: float, side: int) -> Iterator[tuple[Patch, Bytes]]:
    """Cut a field into patches that cover it wholly, row by row.

    Args:
        rgb: uint8 (H, W, 3), both sides at least ``patch_side``.
        patch_side: of a patch in px.
        overlap: share that neighbours have in common.
        side: to which patches are brought, px.

    Raises:
        InvalidImageError: IMAGE_TOO_LARGE: there are more than ``MAX_PATCHES``.
    """
    grid = lay_grid(rgb.shape[1], rgb.shape[0], patch_side, overlap, flush=True)
    if len(grid) > MAX_PATCHES:
        raise InvalidImageError("IMAGE_TOO_LARGE", f"The field takes {len(grid)} patches at its scale; at most {MAX_PATCHES} are judged.")
    for patch in grid:
        yield patch, patch_input(rgb, patch, side)


def find_peaks(judged: Sequence[PatchActivation], min_activation: float, suppression_radius: float) -> tuple[Peak, ...]:
    """Peaks of the network, strongest first; of peaks nearer to each other than the radius (px of the field) only the strongest."""
    return merge((peak for j in judged for peak in peaks(j.activations, j.patch, min_activation)), suppression_radius)


def cells_at(found: Sequence[Peak], located: Sequence[LocatedCell], red_cell: float | None, height: int, width: int) -> tuple[LocatedCell, ...]:
    """The cells at the peaks, top to bottom: measured where the stain shows one there, else of a usual size.

    Args:
        found: peaks, strongest first.
        located: cells that the stain shows; each is given to one peak at most.
        red_cell: radius of the red cells in px; None where they were not seen.
        height, width: of the field.
    """
    free = list(located)
    usual = float(np.clip(WHITE_TO_RED_CELL * (red_cell or 0.02 * min(height, width)), MIN_RADIUS, MAX_RADIUS))
    cells = []
    for peak in found:
        near = min(free, key=lambda c: math.hypot(c.center_x - peak.x, c.center_y - peak.y), default=None)
        if near is not None and math.hypot(near.center_x - peak.x, near.center_y - peak.y) <= near.radius:
            free.remove(near)
            cells.append(near)
        elif not any(math.hypot(c.center_x - peak.x, c.center_y - peak.y) <= c.radius for c in cells):
            cells.append(_usual_cell(peak, usual, height, width))
    return tuple(sorted(cells, key=lambda c: (c.center_y, c.center_x)))


def _usual_cell(peak: Peak, radius: float, height: int, width: int) -> LocatedCell:
    left, top = max(0, math.floor(peak.x - radius)), max(0, math.floor(peak.y - radius))
    right, bottom = min(width, math.ceil(peak.x + radius) + 1), min(height, math.ceil(peak.y + radius) + 1)
    return LocatedCell(peak.x, peak.y, radius, left, top, right - left, bottom - top, UNMEASURED_CONFIDENCE)
