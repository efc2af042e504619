"""Whether the colours of a slide can be those of a stain on glass. YCbCr that is shown as RGB, or RGB as YCbCr, cannot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

MAX_SHARE: Final = 1.25
"""Largest factor by which a colour of the background may differ from the mean of the three. Fields of five data sets have up to 1.20; fields whose
YCbCr is shown as RGB have 1.28 and more, unless they are dim."""
MAX_TINT: Final = 1.15
"""Largest factor by which the green of the background may differ from the (geometric) mean of red and blue. Lamps are yellow or blue, not magenta or
green: with them it stays below 1.11. The two factors must both be exceeded."""
MIN_TOGETHER: Final = 0.3
"""Least correlation of red and green: whatever a stain absorbs darkens both. Fields of five data sets have 0.57 to 1.00; where YCbCr is shown as RGB
it is 0.14 at most, because what is dark has much colour."""
MIN_SPREADS: Final = (6.0, 0.5)
"""Standard deviations of red and green, in grey levels, below which a slide shows too little for a correlation."""
_BRIGHT: Final = (90.0, 99.0)
"""Percentiles of brightness between which pixels are background; brighter ones are glare."""
_SIDE: Final = 128


def colour_samples(window: Bytes) -> Bytes:
    """Some pixels of a window, uint8 (N, 3): about ``_SIDE`` along each side."""
    height, width = window.shape[:2]
    return window[:: max(1, height // _SIDE), :: max(1, width // _SIDE)].reshape(-1, 3)


def are_colours_doubted(samples: Sequence[Bytes]) -> bool:
    """Whether pixels, gathered over a slide, cannot be stained cells on glass.

    Args:
        samples: of each window, uint8 (N, 3) RGB.
    """
    pixels = np.concatenate(samples).astype(np.float64)
    return _has_odd_background(pixels) or _has_odd_stain(pixels)


def _has_odd_background(pixels: NDArray[np.float64]) -> bool:
    brightness = pixels.sum(axis=1)
    low, high = np.percentile(brightness, _BRIGHT)
    red, green, blue = (max(1.0, float(v)) for v in np.median(pixels[(brightness >= low) & (brightness <= high)], axis=0))
    mean = (red + green + blue) / 3.0
    share = max(abs(math.log(colour / mean)) for colour in (red, green, blue))
    tint = abs(math.log(green / math.sqrt(red * blue)))
    return share > math.log(MAX_SHARE) and tint > math.log(MAX_TINT)


def _has_odd_stain(pixels: NDArray[np.float64]) -> bool:
    red, green = pixels[:, 0], pixels[:, 1]
    spreads = float(red.std()), float(green.std())
    if spreads[0] < MIN_SPREADS[0] or spreads[1] < MIN_SPREADS[1]:
        return False
    return float(np.mean((red - red.mean()) * (green - green.mean()))) < MIN_TOGETHER * spreads[0] * spreads[1]
