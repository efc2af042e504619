"""Windows over a slide: cores that divide it, each with a margin in which whole cells are seen."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Final

from services.patching.cells import LocatedCell

SAME_CELL_RADII: Final = 0.6
"""Centres nearer than this many radii of the larger cell are one cell, seen from two windows."""


@dataclass(frozen=True)
class Window:
    """A part of a slide that is read at once, px.

    Attributes:
        x, y, width, height: the part that is read.
        core_x, core_y, core_width, core_height: the part that its cells are taken from; the cores divide the slide.
    """

    x: int
    y: int
    width: int
    height: int
    core_x: int
    core_y: int
    core_width: int
    core_height: int

    def claims(self, x: float, y: float, tolerance: float) -> bool:
        """Whether a centre, px of the slide, lies in the core or at most ``tolerance`` px outside."""
        return (
            self.core_x - tolerance <= x + 0.5 < self.core_x + self.core_width + tolerance
            and self.core_y - tolerance <= y + 0.5 < self.core_y + self.core_height + tolerance
        )


def lay_windows(width: int, height: int, core: int, margin: int) -> Iterator[Window]:
    """Lay windows over a slide, row by row.

    Args:
        width, height: of the slide in px.
        core: side of a core in px, at least 1.
        margin: around it, cut at the border of the slide.
    """
    for core_y in range(0, height, core):
        core_height = min(core, height - core_y)
        top, bottom = max(0, core_y - margin), min(height, core_y + core_height + margin)
        for core_x in range(0, width, core):
            core_width = min(core, width - core_x)
            left, right = max(0, core_x - margin), min(width, core_x + core_width + margin)
            yield Window(left, top, right - left, bottom - top, core_x, core_y, core_width, core_height)


def count_windows(width: int, height: int, core: int) -> int:
    """How many windows ``lay_windows`` lays."""
    return math.ceil(width / core) * math.ceil(height / core)


class SeenCells:
    """The cells of a slide so far; recognises cells that another window has seen already.

    Args:
        pitch: side in px of the squares by which neighbours are looked up; at least the largest radius of a cell.
    """

    def __init__(self, pitch: float) -> None:
        self._pitch = pitch
        self._positions: defaultdict[tuple[int, int], list[tuple[float, float, float]]] = defaultdict(list)

    def add(self, cells: Sequence[LocatedCell]) -> list[bool]:
        """Add the cells of a window, px of the slide; returns which of them no window before has seen."""
        new = [not self._was_seen(cell) for cell in cells]
        for cell in compress(cells, new):
            self._positions[self._square(cell)].append((cell.center_x, cell.center_y, cell.radius))
        return new

    def _was_seen(self, cell: LocatedCell) -> bool:
        column, row = self._square(cell)
        near = (seen for i in (-1, 0, 1) for j in (-1, 0, 1) for seen in self._positions.get((column + i, row + j), ()))
        return any(math.hypot(x - cell.center_x, y - cell.center_y) < SAME_CELL_RADII * max(r, cell.radius) for x, y, r in near)

    def _square(self, cell: LocatedCell) -> tuple[int, int]:
        return int(cell.center_x // self._pitch), int(cell.center_y // self._pitch)
