"""Positions of an image without a nucleated cell. What is located by mistake looks like them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from services.patching.cells import LocatedCell
from services.preprocessing.registration import RELATIVE_RADIUS

_TRIES: Final = 200
_SMALLEST, _LARGEST = 0.3, 0.8
"""Radius at a position, in shares of the radius of the image's cell. What is located by mistake is a platelet, a red cell or debris."""
_CLEARANCE: Final = 1.05


def position_without_cell(
    cells: Sequence[LocatedCell], shape: tuple[int, ...], radius: float, generator: np.random.Generator
) -> tuple[float, float, float] | None:
    """A position of an image without a nucleated cell.

    Args:
        cells: all located cells.
        shape: height and width of the image in px.
        radius: of the cell that is meant, px; that of the position is 0.3 to 0.8 of it.
        generator: decides.

    Returns:
        Centre and radius in px: the registered square lies inside the image, and the centre is farther from that of every cell than 1.05 times both
        radii; a corner of the square may still show a part of one. None where no such position was found.
    """
    height, width = shape[:2]
    for _ in range(_TRIES):
        own = radius * float(generator.uniform(_SMALLEST, _LARGEST))
        margin = own / (2 * RELATIVE_RADIUS)
        if 2 * margin >= min(height, width):
            continue
        x, y = float(generator.uniform(margin, width - margin)), float(generator.uniform(margin, height - margin))
        if all(math.hypot(x - c.center_x, y - c.center_y) > _CLEARANCE * (own + c.radius) for c in cells):
            return x, y, own
    return None
