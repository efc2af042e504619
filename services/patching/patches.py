"""The patches of a field at the scale that a network of patches was trained for, and the cells that this network sees."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.common.errors import InvalidImageError
from services.patching.activation_peaks import Peak, by_strength, merge, peaks
from services.patching.cells import MIN_RADIUS, LocatedCell
from services.patching.grid import Patch, count_grid, lay_grid
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
MAX_CUT_PIXELS: Final = 400_000_000
"""Pixels of the field in all its patches; with the overlap of the papers, twice the largest field."""
MAX_PATCH_PIXELS: Final = MAX_PATCHES * 256**2
"""Pixels of all patches after they are resized."""
MAX_PEAKS: Final = 4096
"""Peaks that may be cells, the strongest of all patches."""
_ROUNDING: Final = 1e-6


@dataclass(frozen=True)
class PatchActivation:
    """Class activations of a network on one patch.

    Attributes:
        patch: the square, px of the field.
        activations: float32 (h, w, 2), logits of blast and other nucleated cell by place.
    """

    patch: Patch
    activations: NDArray[np.float32]

    def moved(self, x: int, y: int) -> PatchActivation:
        """The activations in px of an image in which this field lies at (x, y)."""
        return replace(self, patch=self.patch.moved(x, y))


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
    """Cut a field into patches that cover it wholly, row by row; each is cut when it is asked for.

    Args:
        rgb: uint8 (H, W, 3), both sides at least ``patch_side``.
        patch_side: of a patch in px.
        overlap: share that neighbours have in common.
        side: to which patches are brought, px.

    Raises:
        InvalidImageError: IMAGE_TOO_LARGE: there are more than ``MAX_PATCHES``, ``MAX_CUT_PIXELS`` or ``MAX_PATCH_PIXELS``.
    """
    count = count_grid(rgb.shape[1], rgb.shape[0], patch_side, overlap)
    most = min(MAX_PATCHES, MAX_CUT_PIXELS // patch_side**2, MAX_PATCH_PIXELS // side**2)
    if count > max(1, most):
        raise InvalidImageError("IMAGE_TOO_LARGE", f"The field takes {count} patches at its scale; at most {most} of this size are judged.")
    grid = lay_grid(rgb.shape[1], rgb.shape[0], patch_side, overlap, flush=True)
    return ((patch, patch_input(rgb, patch, side)) for patch in grid)


def find_peaks(judged: Sequence[PatchActivation], min_activation: float, suppression_radius: float) -> tuple[Peak, ...]:
    """Peaks of the network, strongest first; of peaks nearer to each other than the radius (px of the field) only the strongest.

    At most ``MAX_PEAKS``, the strongest, are looked at.
    """
    found: list[Peak] = []
    least = min_activation
    for one in judged:
        found += peaks(one.activations, one.patch, least, MAX_PEAKS)
        if len(found) > 2 * MAX_PEAKS:
            found = sorted(found, key=by_strength)[:MAX_PEAKS]
            least = max(least, found[-1].activation)
    return merge(sorted(found, key=by_strength)[:MAX_PEAKS], suppression_radius)


def cells_at(found: Sequence[Peak], located: Sequence[LocatedCell], red_cell: float | None, height: int, width: int) -> tuple[LocatedCell, ...]:
    """The cells at the peaks, top to bottom: measured where the stain shows one there, else of a usual size.

    Args:
        found: peaks, strongest first, at most ``MAX_PEAKS``.
        located: cells that the stain shows; each is given to one peak at most.
        red_cell: radius of the red cells in px; None where they were not seen.
        height, width: of the field.
    """
    free = _Centres(located)
    usual = float(np.clip(WHITE_TO_RED_CELL * (red_cell or 0.02 * min(height, width)), MIN_RADIUS, min(height, width) / 2))
    taken = _Centres(())
    for peak in found:
        near = free.nearest(peak)
        if near is not None and _distance(near, peak) <= near.radius:
            free.remove(near)
            taken.add(near)
        elif not taken.cover(peak):
            taken.add(_usual_cell(peak, usual, height, width))
    return tuple(sorted(taken.cells, key=lambda c: (c.center_y, c.center_x)))


class _Centres:
    """Cells that are looked up by their centres: NumPy finds those in question, and the exact distance decides."""

    def __init__(self, cells: Sequence[LocatedCell]) -> None:
        self.cells = list(cells)
        self._places = np.full((3, len(self.cells) + MAX_PEAKS), np.nan)
        self._places[:, : len(self.cells)] = np.array([(c.center_x, c.center_y, c.radius) for c in cells], np.float64).reshape(-1, 3).T
        self._is_free = np.ones(len(self.cells) + MAX_PEAKS, bool)

    def add(self, cell: LocatedCell) -> None:
        self._places[:, len(self.cells)] = cell.center_x, cell.center_y, cell.radius
        self.cells.append(cell)

    def remove(self, cell: LocatedCell) -> None:
        self._is_free[next(i for i, c in enumerate(self.cells) if self._is_free[i] and c is cell)] = False

    def nearest(self, peak: Peak) -> LocatedCell | None:
        """The first of the nearest cells that were not removed."""
        distances = np.where(self._is_free[: len(self.cells)], self._distances(peak), np.inf)
        least = distances.min(initial=np.inf)
        near = [self.cells[i] for i in np.flatnonzero(distances <= least + _ROUNDING).tolist() if self._is_free[i]]
        return min(near, key=lambda c: _distance(c, peak), default=None)

    def cover(self, peak: Peak) -> bool:
        """Whether a peak lies in a cell."""
        near = np.flatnonzero(self._distances(peak) <= self._places[2, : len(self.cells)] + _ROUNDING)
        return any(_distance(self.cells[i], peak) <= self.cells[i].radius for i in near.tolist())

    def _distances(self, peak: Peak) -> NDArray[np.float64]:
        x, y, _ = self._places[:, : len(self.cells)]
        return np.asarray(np.hypot(x - peak.x, y - peak.y), np.float64)


def _distance(cell: LocatedCell, peak: Peak) -> float:
    return math.hypot(cell.center_x - peak.x, cell.center_y - peak.y)


def _usual_cell(peak: Peak, radius: float, height: int, width: int) -> LocatedCell:
    left, top = max(0, math.floor(peak.x - radius)), max(0, math.floor(peak.y - radius))
    right, bottom = min(width, math.ceil(peak.x + radius) + 1), min(height, math.ceil(peak.y + radius) + 1)
    return LocatedCell(peak.x, peak.y, radius, left, top, right - left, bottom - top, UNMEASURED_CONFIDENCE)
