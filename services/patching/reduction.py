"""Copies of an image at a whole fraction of its size."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from services.common.image_codec import MIN_SIDE

Bytes = NDArray[np.uint8]


def reduction_to(side: int, height: int, width: int) -> int:
    """Whole factor to at most ``side`` px; the shorter side keeps at least ``MIN_SIDE`` px, so that a long thin image is reduced less."""
    return max(1, min(math.ceil(max(height, width) / side), min(height, width) // MIN_SIDE))


def reduced(rgb: Bytes, factor: int) -> Bytes:
    """The image at a whole fraction of its size, averaged; rows and columns that are left over are cut off."""
    if factor == 1:
        return rgb
    height, width = rgb.shape[0] // factor, rgb.shape[1] // factor
    return np.asarray(cv2.resize(rgb[: height * factor, : width * factor], (width, height), interpolation=cv2.INTER_AREA), np.uint8)
