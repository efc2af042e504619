"""Layout of the white cells: inside the image, without overlap."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from services.common.phantom.canvas import DrawnCell
from services.common.phantom.caption import strip_height
from services.common.phantom.options import PhantomOptions
from services.common.phantom.planes import Bitmap, polar


def no_room(options: PhantomOptions) -> str:
    """Say that the white cells do not fit into the image."""
    return (
        f"cells must fit into the image, but {options.cells} cells of cell_radius {options.cell_radius:g} "
        f"do not fit into {options.width} x {options.height} pixels."
    )


@dataclass(frozen=True)
class LaidOut:
    """A drawn cell with its left and top in the image; ``touched`` says whether other cells may touch it."""

    cell: DrawnCell
    left: int
    top: int
    touched: bool


class Occupancy:
    """Bitmap of the image onto which cells are stamped; pixels outside the image are ignored.

    Attributes:
        bits: (H, W) the stamped pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        self.bits: Bitmap = np.zeros((height, width), dtype=np.bool_)

    def overlap(self, solid: Bitmap, left: int, top: int) -> int:
        """Pixels of a cell that are stamped already."""
        image, cell = clip(solid.shape, left, top, self.bits.shape)
        return int(np.count_nonzero(self.bits[image] & solid[cell]))

    def visible(self, solid: Bitmap, left: int, top: int) -> int:
        """Pixels of a cell that lie inside the image."""
        _, cell = clip(solid.shape, left, top, self.bits.shape)
        return int(np.count_nonzero(solid[cell]))

    def stamp(self, solid: Bitmap, left: int, top: int, grow: int = 0) -> None:
        """Stamp a cell, grown by some pixels on all sides."""
        if grow > 0:
            kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * grow + 1, 2 * grow + 1))
            solid = cv2.dilate(np.pad(solid, grow).astype(np.uint8), kernel) > 0
        image, cell = clip(solid.shape, left - grow, top - grow, self.bits.shape)
        self.bits[image] |= solid[cell]


def clip(shape: tuple[int, ...], left: int, top: int, size: tuple[int, ...]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Slices of the image and of the cell where the two overlap."""
    image, cell = [], []
    for offset, length, limit in ((top, shape[0], size[0]), (left, shape[1], size[1])):
        low = min(max(offset, 0), limit)
        high = max(min(offset + length, limit), low)
        image.append(slice(low, high))
        cell.append(slice(low - offset, high - offset))
    return (image[0], image[1]), (cell[0], cell[1])


def _free_span(cell: DrawnCell, options: PhantomOptions) -> tuple[int, int]:
    """Largest left and top that keep a cell inside the image and above the caption."""
    height, width = cell.solid.shape
    return options.width - width, options.height - strip_height(options) - height


def lay_out_central(cell: DrawnCell, options: PhantomOptions, rng: np.random.Generator) -> LaidOut:
    """Lay out one cell near the centre of the image.

    Raises:
        ValueError: If it does not fit.
    """
    span_x, span_y = _free_span(cell, options)
    if min(span_x, span_y) < 0:
        raise ValueError(no_room(options))
    height, width = cell.solid.shape
    jitter_x, jitter_y = rng.integers(-4, 5, 2)
    left = min(max((options.width - width) // 2 + int(jitter_x), 0), span_x)
    top = min(max((options.height - height) // 2 + int(jitter_y), 0), span_y)
    return LaidOut(cell, left, top, bool(rng.random() < options.touching))


def lay_out_whites(cells: list[DrawnCell], options: PhantomOptions, rng: np.random.Generator) -> list[LaidOut]:
    """Lay out all cells, from top to bottom.

    Raises:
        ValueError: If they do not fit.
    """
    groups = _group(cells, options, rng)
    attempts = 10
    for attempt in range(attempts):
        gap = round(0.25 * options.cell_radius * (1.0 - attempt / (attempts - 1)))
        laid_out = _try_layout(groups, options, gap, rng)
        if laid_out is not None:
            return sorted(laid_out, key=_center_row)
    raise ValueError(no_room(options))


def _center_row(item: LaidOut) -> float:
    return float(np.nonzero(item.cell.solid)[0].mean() + item.top)


def _group(cells: list[DrawnCell], options: PhantomOptions, rng: np.random.Generator) -> list[tuple[list[DrawnCell], bool]]:
    """Groups of cells that lie together, each with whether they are touched; the largest groups come first."""
    count = min(int(options.touching * len(cells) + rng.random()), len(cells))
    touched = list(cells[:count])
    groups: list[tuple[list[DrawnCell], bool]] = [([cell], False) for cell in cells[count:]]
    while touched:
        pair = len(touched) > 1 and (options.red_cell_density == 0 or rng.random() < 0.35)
        groups.append(([touched.pop() for _ in range(2 if pair else 1)], True))
    return sorted(groups, key=lambda group: -sum(cell.solid.size for cell in group[0]))


def _try_layout(groups: list[tuple[list[DrawnCell], bool]], options: PhantomOptions, gap: int, rng: np.random.Generator) -> list[LaidOut] | None:
    taken = Occupancy(options.width, options.height)
    laid_out: list[LaidOut] = []
    for members, touched in groups:
        spots = _find_room(members, options, taken, rng)
        if spots is None:
            return None
        for cell, (left, top) in zip(members, spots, strict=True):
            taken.stamp(cell.solid, left, top, gap)
            laid_out.append(LaidOut(cell, left, top, touched))
    return laid_out


def _find_room(members: list[DrawnCell], options: PhantomOptions, taken: Occupancy, rng: np.random.Generator) -> list[tuple[int, int]] | None:
    span_x, span_y = _free_span(members[0], options)
    if min(span_x, span_y) < 0:
        return None
    for _ in range(300):
        left, top = int(rng.integers(span_x + 1)), int(rng.integers(span_y + 1))
        if taken.overlap(members[0].solid, left, top):
            continue
        if len(members) == 1:
            return [(left, top)]
        second = beside(members[0], left, top, members[1], 0, rng.uniform(0.0, math.tau))
        limit_x, limit_y = _free_span(members[1], options)
        inside = 0 <= second[0] <= limit_x and 0 <= second[1] <= limit_y
        if inside and not taken.overlap(members[1].solid, *second):
            return [(left, top), second]
    return None


def beside(still: DrawnCell, left: int, top: int, moved: DrawnCell, allowed: int, angle: float) -> tuple[int, int]:
    """Nearest left and top in a direction at which ``moved`` shares at most ``allowed`` pixels with ``still``."""
    (height, width), (h, w) = still.solid.shape, moved.solid.shape
    reach = max(height, width) + max(h, w)
    local = Occupancy(width + 2 * reach, height + 2 * reach)
    local.stamp(still.solid, reach, reach)
    for step in range(reach):
        x, y = polar(float(step), angle)
        dx, dy = round((width - w) / 2 + x), round((height - h) / 2 + y)
        if local.overlap(moved.solid, reach + dx, reach + dy) <= allowed:
            break
    return left + dx, top + dy
