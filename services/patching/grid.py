"""The grid of ALL-IDB Patches: overlapping squares of one side, and the centres that belong to each square.

Source: Genovese et al., "ALL-IDB Patches: whole slide imaging for acute lymphoblastic leukemia detection using deep learning" (ICASSP
Workshops 2023): side 256 px, overlap a quarter, tolerance 5 px.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from services.common.errors import InvalidRequestError

SIDE: Final = 256
OVERLAP: Final = 0.25
TOLERANCE: Final = 5
Point = tuple[float, float]


@dataclass(frozen=True)
class Patch:
    """A square of an image.

    Attributes:
        number: from 1, row by row; the papers' numbering, not to be relied on.
        x, y: its top left pixel, counted from 0.
        side: of the square in px.
    """

    number: int
    x: int
    y: int
    side: int = SIDE

    def moved(self, x: int, y: int) -> Patch:
        """The square in px of an image in which its own image lies at (x, y)."""
        return replace(self, x=self.x + x, y=self.y + y)

    def holds(self, point: Point, tolerance: float = TOLERANCE) -> bool:
        """Whether a centre (x, y), px of the image counted from 0, lies inside or within the tolerance of it."""
        last = self.side - 1 + tolerance
        return self.x - tolerance <= point[0] <= self.x + last and self.y - tolerance <= point[1] <= self.y + last

    def local(self, point: Point) -> Point:
        """The point in px of the patch, moved inside where the tolerance let it be outside."""
        x, y = (min(max(p - start, 0.0), self.side - 1.0) for p, start in zip(point, (self.x, self.y), strict=True))
        return x, y


def lay_grid(width: int, height: int, side: int = SIDE, overlap: float = OVERLAP, *, flush: bool = False) -> tuple[Patch, ...]:
    """Lay patches over an image from its top left corner, row by row.

    Args:
        width, height: of the image in px.
        side: of a patch in px, at least 1.
        overlap: share of the side that neighbours have in common, 0 to below 1; the step is ``round(side (1 - overlap))``.
        flush: add patches flush with the right and bottom border where the grid leaves a strip, at most a step wide, uncovered.

    Returns:
        Patches that lie wholly inside: ``floor((size - side) / step) + 1`` per axis, as published, and the flush ones.

    Raises:
        InvalidRequestError: the image is smaller than a patch, or a number is out of range.
    """
    rows, columns = _axes(width, height, side, overlap, flush=flush)
    corners = [(x, y) for y in rows for x in columns]
    return tuple(Patch(number, x, y, side) for number, (x, y) in enumerate(corners, start=1))


def count_grid(width: int, height: int, side: int, overlap: float) -> int:
    """How many patches ``lay_grid`` lays, the flush ones among them.

    Raises:
        InvalidRequestError: as ``lay_grid``.
    """
    rows, columns = _axes(width, height, side, overlap, flush=True)
    return len(rows) * len(columns)


def _axes(width: int, height: int, side: int, overlap: float, *, flush: bool) -> tuple[Sequence[int], Sequence[int]]:
    """First rows and first columns of the patches."""
    if side < 1 or not 0.0 <= overlap < 1.0 or round(side * (1.0 - overlap)) < 1:
        raise InvalidRequestError("GRID_INVALID", "A patch has a side of at least 1 px, and patches overlap by 0 to less than 1 of it.")
    if min(width, height) < side:
        raise InvalidRequestError("IMAGE_SMALLER_THAN_PATCH", f"An image of {width} x {height} px holds no patch of {side} px.")
    step = round(side * (1.0 - overlap))
    return _starts(height, side, step, flush), _starts(width, side, step, flush)


def _starts(size: int, side: int, step: int, flush: bool) -> Sequence[int]:
    starts = list(range(0, size - side + 1, step))
    return [*starts, size - side] if flush and starts[-1] + side < size else starts
