"""YCbCr as JFIF defines it."""

from __future__ import annotations

import numpy as np
import pytest

from services.patching.slides.ycbcr import rgb_of_ycbcr


@pytest.mark.parametrize(
    ("ycbcr", "rgb"),
    [((0, 128, 128), (0, 0, 0)), ((255, 128, 128), (255, 255, 255)), ((76, 85, 255), (254, 0, 0)), ((200, 100, 150), (231, 194, 150))],
)
def test_known_colours(ycbcr: tuple[int, int, int], rgb: tuple[int, int, int]) -> None:
    pixels = np.full((2, 3, 3), ycbcr, np.uint8)
    assert np.abs(rgb_of_ycbcr(pixels).astype(int) - rgb).max() <= 1
    assert rgb_of_ycbcr(pixels).shape == (2, 3, 3)
