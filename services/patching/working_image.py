"""The image that the locator sees: at a scale at which every red cell has the same radius, the light of its background evened out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.patching.reduction import reduced

Bytes = NDArray[np.uint8]
Float = NDArray[np.float32]
Mask = NDArray[np.bool_]

RED_CELL_RADIUS: Final = 7.0
"""Radius of a red cell in px of the working image of a field."""
FINE_RADIUS: Final = 9.0
"""The same for a small image: there are few pixels, so outlines may be fine."""
BACKGROUND: Final = 224
"""Value of the background in all three channels; brighter pixels than the light keep some room above it."""
MULTIPLE: Final = 8
"""Sides of what the network sees are multiples of this; background fills them up to the right and below."""


@dataclass(frozen=True, eq=False)
class WorkingImage:
    """What the locator sees of an image.

    Attributes:
        pixels: uint8 (h, w, 3), sides multiples of ``MULTIPLE``.
        height, width: of the part that shows the image; the rest is background.
        step_x, step_y: px of the image for one px of the working image.
        red_cell_radius: of a red cell, px of the working image.
    """

    pixels: Bytes
    height: int
    width: int
    step_x: float
    step_y: float
    red_cell_radius: float = RED_CELL_RADIUS


def working_image(rgb: Bytes, light: Float, red_cell_radius: float, outside: Mask | None = None, *, to: float = RED_CELL_RADIUS) -> WorkingImage:
    """Bring an image to the scale and the light of the locator; rows and columns that a reduction by a whole factor leaves over are cut off.

    Args:
        rgb: uint8 (H, W, 3).
        light: the light of its background, float32 (h, w, 3) in 1..255, of any size.
        red_cell_radius: of a red cell, px of ``rgb``.
        outside: bool (h', w'), of any size: pixels without a picture, which become background; None for none.
        to: radius of a red cell in px of the working image.
    """
    factor = max(1, math.floor(red_cell_radius / to))
    small = reduced(rgb, factor)
    height, width = (scaled(side * factor, red_cell_radius, to) for side in small.shape[:2])
    flat = evened(resized(small, height, width), light)
    if outside is not None:
        flat[cv2.resize(outside.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0] = BACKGROUND
    bottom, right = -height % MULTIPLE, -width % MULTIPLE
    padded = cv2.copyMakeBorder(flat, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=(BACKGROUND,) * 3)
    return WorkingImage(np.asarray(padded, np.uint8), height, width, factor * small.shape[1] / width, factor * small.shape[0] / height, to)


def scaled(side: int, red_cell_radius: float, to: float = RED_CELL_RADIUS) -> int:
    """Side of the working image in px for a side of the image in px."""
    return max(MULTIPLE, math.floor(side * to / red_cell_radius + 0.5))


def resized(rgb: Bytes, height: int, width: int) -> Bytes:
    """The image at another size, averaged where it becomes smaller."""
    if rgb.shape[:2] == (height, width):
        return rgb
    method = cv2.INTER_AREA if height < rgb.shape[0] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(rgb, (width, height), interpolation=method), np.uint8)


def evened(rgb: Bytes, light: Float) -> Bytes:
    """The image divided by the light of its background, uint8 (H, W, 3); the background becomes ``BACKGROUND``."""
    gain = BACKGROUND / np.asarray(cv2.resize(light, rgb.shape[1::-1], interpolation=cv2.INTER_LINEAR), np.float32)
    return np.asarray(cv2.multiply(rgb, gain, dtype=cv2.CV_8U), np.uint8)
