"""Registration: centre a cell and bring its radius to the size that the networks know.

Source: adaptive unsharpening (Genovese et al., ICASSP 2021): a cell radius of 256 / 2 / 1.5 = 85 px in a square of
256 px. Unlike the original, the square is centred on the cell, not on the image, and what lies beyond the border is
reflected instead of switching to a tighter crop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.common.errors import InvalidRequestError

Bytes = NDArray[np.uint8]

RELATIVE_RADIUS: Final = 85.0 / 256.0
"""Radius of a registered cell as a share of the square's side."""
MIN_RADIUS: Final = 2.0


@dataclass(frozen=True)
class RegisteredCell:
    """A registered cell.

    Attributes:
        pixels: uint8 (side, side, 3), the cell's centre in the middle.
        upscale_factor: registered pixels per input pixel; above 1 the cell was enlarged.
        reflected_share: share 0..1 of the square that lies beyond the input and was reflected.
    """

    pixels: Bytes
    upscale_factor: float
    reflected_share: float


def register(rgb: Bytes, center_x: float, center_y: float, radius: float, side: int) -> RegisteredCell:
    """Cut a square around a cell so that the cell's radius becomes ``RELATIVE_RADIUS * side``.

    Args:
        rgb: uint8 (H, W, 3).
        center_x, center_y: centre of the cell in px of ``rgb``, inside it (pixel centres at integers).
        radius: radius of the whole cell in px of ``rgb``, at least ``MIN_RADIUS``, at most the longer side of ``rgb``.
        side: side of the result in px, at least 32.

    Raises:
        InvalidRequestError: a number is not finite or out of range.
    """
    height, width = rgb.shape[:2]
    if not all(map(math.isfinite, (center_x, center_y, radius))):
        raise InvalidRequestError("CELL_NOT_FINITE", "Centre and radius of a cell must be finite numbers.", field="crops")
    inside = -0.5 <= center_x <= width - 0.5 and -0.5 <= center_y <= height - 0.5
    if not inside or not MIN_RADIUS <= radius <= max(height, width):
        raise InvalidRequestError(
            "CELL_OUTSIDE_CROP",
            f"The centre must lie inside the crop and the radius in {MIN_RADIUS:g} px .. the longer side of the crop.",
            field="crops",
        )
    step = radius / (RELATIVE_RADIUS * side)
    source = rgb
    if step > 1.0:
        source = np.asarray(cv2.GaussianBlur(rgb, (0, 0), 0.45 * math.sqrt(step**2 - 1.0), borderType=cv2.BORDER_REFLECT), np.uint8)
    middle = (side - 1) / 2
    to_input = np.array([[step, 0.0, center_x - step * middle], [0.0, step, center_y - step * middle]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    pixels = cv2.warpAffine(source, to_input, (side, side), flags=flags, borderMode=cv2.BORDER_REFLECT)
    return RegisteredCell(np.asarray(pixels, np.uint8), 1.0 / step, _share_outside(center_x, center_y, step * side / 2, height, width))


def _share_outside(x: float, y: float, half: float, height: int, width: int) -> float:
    inside_x = min(x + half, width - 0.5) - max(x - half, -0.5)
    inside_y = min(y + half, height - 0.5) - max(y - half, -0.5)
    return float(np.clip(1.0 - max(inside_x, 0.0) * max(inside_y, 0.0) / (2 * half) ** 2, 0.0, 1.0))
