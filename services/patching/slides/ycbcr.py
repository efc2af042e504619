"""YCbCr to RGB, as JFIF defines it: all 256 values are in use."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


def rgb_of_ycbcr(pixels: NDArray[Any]) -> NDArray[Any]:
    """Convert uint8 or uint16 (H, W, 3)."""
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels[..., (0, 2, 1)]), cv2.COLOR_YCrCb2RGB))
