"""What can be said of an image before any cell is judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

_DARK: Final = 16


@dataclass(frozen=True)
class Exposure:
    """Shares 0..1 of pixels with a channel at 255, and of pixels whose channels are all below 16."""

    over: float
    under: float


def measure_exposure(rgb: NDArray[np.uint8]) -> Exposure:
    """Measure exposure on every fourth pixel of uint8 (H, W, 3)."""
    red, green, blue = (rgb[::2, ::2, channel] for channel in range(3))
    brightest = np.maximum(np.maximum(red, green), blue)
    return Exposure(float((brightest == 255).mean()), float((brightest < _DARK).mean()))
