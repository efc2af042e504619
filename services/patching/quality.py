"""Quality of an image before any cell is judged: exposure and focus map."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

_DARK: Final = 16
MAX_SQUARES: Final = 8
"""Most rows and columns of the focus map."""
SQUARE_SIDE: Final = 128
"""A square of the focus map is at least about this wide, px; of its middle at most 1.5 times this is measured."""
MIN_CONTRAST: Final = 20.0
"""Grey levels between light and dark below which a square has no edge to measure."""
_SOBEL_SUM: Final = 8.0
"""Response of a Sobel filter to a slope of one grey level per px."""
_STEP_SLOPE: Final = math.sqrt(2.0 * math.pi)
"""A step of height h that a Gaussian of deviation s has blurred is at most h / (s sqrt(2 pi)) steep."""


@dataclass(frozen=True)
class Exposure:
    """Shares 0..1 of pixels with a channel at 255, and of pixels whose channels are all below 16."""

    over: float
    under: float


def measure_exposure(rgb: NDArray[np.uint8], outside: NDArray[np.bool_] | None = None) -> Exposure:
    """Measure exposure on every fourth pixel.

    Args:
        rgb: uint8 (H, W, 3).
        outside: bool (h, w), where a smaller copy of the image has no picture; such pixels do not count.
    """
    red, green, blue = (rgb[::2, ::2, channel] for channel in range(3))
    brightest = np.maximum(np.maximum(red, green), blue)
    if outside is not None:
        size = (brightest.shape[1], brightest.shape[0])
        brightest = brightest[cv2.resize(outside.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) == 0]
    if not brightest.size:
        return Exposure(0.0, 0.0)
    return Exposure(float((brightest == 255).mean()), float((brightest < _DARK).mean()))


def focus_map(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Blur of the sharpest edges by square.

    Args:
        rgb: uint8 (H, W, 3), sides at least 32.

    Returns:
        float32 (rows, columns), each 1..``MAX_SQUARES``: the standard deviation in px of the Gaussian that would blur a step as much
        as the steepest edges in the middle of the square are, about 0.8 at least; NaN where nothing has an edge.
    """
    height, width = rgb.shape[:2]
    rows, columns = (min(MAX_SQUARES, max(1, round(side / SQUARE_SIDE))) for side in (height, width))
    squares = [[_middle(rgb[..., 1], row, rows, column, columns) for column in range(columns)] for row in range(rows)]
    return np.array([[_blur(square) for square in row] for row in squares], np.float32)


def typical_blur(blur: NDArray[np.float32]) -> float:
    """The median over a focus map, px; NaN where nothing has an edge."""
    measured = blur[np.isfinite(blur)]
    return float(np.median(measured)) if measured.size else math.nan


def _middle(plane: NDArray[np.uint8], row: int, rows: int, column: int, columns: int) -> NDArray[np.uint8]:
    top, bottom = plane.shape[0] * row // rows, plane.shape[0] * (row + 1) // rows
    left, right = plane.shape[1] * column // columns, plane.shape[1] * (column + 1) // columns
    most = SQUARE_SIDE * 3 // 2
    down, across = max(0, bottom - top - most) // 2, max(0, right - left - most) // 2
    return np.ascontiguousarray(plane[top + down : bottom - down, left + across : right - across])


def _blur(plane: NDArray[np.uint8]) -> float:
    dark, light = np.percentile(plane[::2, ::2], [2, 98])
    if light - dark < MIN_CONTRAST:
        return math.nan
    # In whole numbers, so that no rounding depends on the order of sums.
    across, down = (cv2.Sobel(plane, cv2.CV_16S, *order).astype(np.int32) for order in ((1, 0), (0, 1)))
    steepest = math.sqrt(float(np.percentile(across * across + down * down, 99.5))) / _SOBEL_SUM
    return float(light - dark) / (_STEP_SLOPE * steepest) if steepest > 0 else math.nan
