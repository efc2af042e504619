"""Registration and sharpening exactly as the paper's program does them, flaws included; for reproducing its figures, not for serving.

Source: the program of Genovese et al., ICASSP 2021. The square is centred on the image, not on the cell; a cell too large for it is cropped
tight, and one too large even for that is dropped; where no radius reaches the threshold, the last result is kept.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from services.preprocessing.focus import focus_score
from services.preprocessing.unsharpening import RADII, RADII_SIDE, SharpenedCell, unsharp_mask

Bytes = NDArray[np.uint8]
Mask = NDArray[np.bool_]
_AXIS_SCALE: Final = 1.5
_MIN_ELLIPSE_POINTS: Final = 5


def short_axis(mask: Mask) -> float:
    """Short axis in px of the ellipse that fits the outline of a mask, bool (H, W); 0 where the outline has fewer than five points."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(contours, key=len, default=None)
    if outline is None or len(outline) < _MIN_ELLIPSE_POINTS:
        return 0.0
    return float(min(cv2.fitEllipse(outline)[1]))


def register_legacy(rgb: Bytes, axis: float, side: int) -> Bytes | None:
    """Cut the middle of an image by the short axis of its cell.

    Args:
        rgb: uint8 (H, W, 3).
        axis: short axis of the cell in px.
        side: side of the result in px.

    Returns:
        uint8 (side, side, 3), antialiased bicubic: the square of half-side ``round(1.5 axis / 2)``, or, where that leaves the image, ``round(axis / 2)``; None
        where that leaves it too, or where the axis is below one pixel.
    """
    row, column = rgb.shape[0] // 2 - 1, rgb.shape[1] // 2 - 1  # floor(h / 2) of a program that counts from 1
    for half in (round(_AXIS_SCALE * axis / 2), round(axis / 2)):
        if half < 1:
            return None
        if half <= min(row, column) and row + half < rgb.shape[0] and column + half < rgb.shape[1]:
            square = rgb[row - half : row + half + 1, column - half : column + half + 1]
            return np.asarray(Image.fromarray(square).resize((side, side), Image.Resampling.BICUBIC), np.uint8)
    return None


def sharpen_legacy(rgb: Bytes, threshold: float) -> SharpenedCell:
    """Adaptive unsharpening of uint8 (side, side, 3) with one threshold, nothing refused; the last radius is kept if none suffices."""
    before = after = focus_score(rgb)
    pixels, chosen = rgb, 0
    for radius in RADII:
        if after <= threshold:
            break
        pixels, chosen = unsharp_mask(rgb, radius * rgb.shape[0] / RADII_SIDE), radius
        after = focus_score(pixels)
    return SharpenedCell(pixels, before, after, chosen, True, ())
