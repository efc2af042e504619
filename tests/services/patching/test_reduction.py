"""Copies at whole fractions keep the middle of what they show and stay large enough to be located."""

from __future__ import annotations

import numpy as np
import pytest

from services.common.image_codec import MIN_SIDE
from services.patching.reduction import reduced, reduction_to


@pytest.mark.parametrize(("height", "width", "factor"), [(480, 640, 2), (512, 512, 1), (513, 200, 2), (1944, 2592, 6), (40, 4000, 1)])
def test_the_longer_side_has_at_most_as_many_px(height: int, width: int, factor: int) -> None:
    assert reduction_to(512, height, width) == factor
    assert min(height, width) // factor >= MIN_SIDE


def test_px_are_averaged_and_what_is_left_over_is_cut_off() -> None:
    rgb = np.zeros((7, 9, 3), np.uint8)
    rgb[:3, 3:6] = 90
    small = reduced(rgb, 3)
    assert small.shape == (2, 3, 3)
    assert small[0].tolist() == [[0] * 3, [90] * 3, [0] * 3]
    assert reduced(rgb, 1) is rgb
