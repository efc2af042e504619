"""Tests of exposure."""

from __future__ import annotations

import numpy as np
import pytest

from services.patching.quality import measure_exposure


def test_shares_are_counted() -> None:
    image = np.full((40, 40, 3), 100, np.uint8)
    image[:10] = 255
    image[10:14] = 15
    exposure = measure_exposure(image)
    assert exposure.over == pytest.approx(0.25)
    assert exposure.under == pytest.approx(0.1)


def test_one_full_channel_is_overexposed_and_one_light_channel_is_not_dark() -> None:
    image = np.full((40, 40, 3), (255, 100, 100), np.uint8)
    image[20:] = (0, 0, 16)
    assert measure_exposure(image).over == pytest.approx(0.5)
    assert measure_exposure(image).under == 0.0


@pytest.mark.parametrize(("value", "over", "under"), [(0, 0.0, 1.0), (15, 0.0, 1.0), (16, 0.0, 0.0), (254, 0.0, 0.0), (255, 1.0, 0.0)])
def test_flat_images(value: int, over: float, under: float) -> None:
    exposure = measure_exposure(np.full((33, 47, 3), value, np.uint8))
    assert (exposure.over, exposure.under) == (over, under)
