"""Cut the pixels around located cells, in batches that fit in a message."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.common.checks import MAX_CELLS_PER_CALL
from services.patching.cells import LocatedCell
from services.patching.reduction import reduced

Bytes = NDArray[np.uint8]

SIDE_IN_RADII: Final = 4.0
MIN_SIDE: Final = 32
MAX_SIDE: Final = 2048
MAX_BATCH_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True)
class CutCrop:
    """Pixels around one cell.

    Attributes:
        pixels: uint8 (H, W, 3), at native resolution where ``reduction`` is 1.
        origin_x, origin_y: of its first pixel, px of the image.
        reduction: whole factor by which the crop is smaller.
    """

    pixels: Bytes
    origin_x: int
    origin_y: int
    reduction: int = 1

    def moved(self, x: int, y: int) -> CutCrop:
        """The crop in px of an image in which its own image lies at (x, y)."""
        return replace(self, origin_x=self.origin_x + x, origin_y=self.origin_y + y)


def cut(rgb: Bytes, cell: LocatedCell) -> CutCrop:
    """Cut a square of four radii around a cell, clipped to the image; reduced where it has more than ``MAX_SIDE`` px."""
    reduction = max(1, math.ceil(SIDE_IN_RADII * cell.radius / MAX_SIDE))
    half = min(max(math.ceil(SIDE_IN_RADII / 2 * cell.radius) + 1, MIN_SIDE // 2), reduction * MAX_SIDE // 2)
    x, y = round(cell.center_x), round(cell.center_y)
    left, top = max(0, x - half), max(0, y - half)
    return CutCrop(reduced(rgb[top : y + half, left : x + half], reduction), left, top, reduction)


def batches(rgb: Bytes, cells: Sequence[LocatedCell]) -> Iterator[list[tuple[int, LocatedCell, CutCrop]]]:
    """Cut all cells, in order, in batches of at most ``MAX_CELLS_PER_CALL`` cells and about ``MAX_BATCH_BYTES``."""
    batch: list[tuple[int, LocatedCell, CutCrop]] = []
    size = 0
    for number, cell in enumerate(cells):
        crop = cut(rgb, cell)
        if batch and (len(batch) == MAX_CELLS_PER_CALL or size + crop.pixels.size > MAX_BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((number, cell, crop))
        size += crop.pixels.size
    if batch:
        yield batch
