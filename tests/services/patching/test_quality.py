"""Tests of exposure."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from services.common.phantom import PhantomOptions, smear_field
from services.patching.quality import focus_map, measure_exposure, typical_blur


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


@pytest.mark.parametrize("sigma", [1.5, 2.5, 4.0])
@pytest.mark.parametrize("noise", [0.0, 4.0])
def test_blur_is_measured_in_pixels(sigma: float, noise: float) -> None:
    image = np.full((512, 640, 3), 220, np.uint8)
    for x, y in np.random.default_rng(1).integers(0, 640, (60, 2)).tolist():
        cv2.circle(image, (x, y), 30, (90, 60, 120), cv2.FILLED)
    blurred = cv2.GaussianBlur(image, (0, 0), sigma) + np.random.default_rng(0).normal(0, noise, image.shape)
    measured = typical_blur(focus_map(np.clip(blurred, 0, 255).astype(np.uint8)))
    assert measured == pytest.approx(sigma, rel=0.3)


def test_the_map_shows_where_an_image_is_blurred() -> None:
    image = smear_field(2, PhantomOptions(width=1024, height=512, red_cell_density=0.5)).image.copy()
    image[:, 512:] = cv2.GaussianBlur(image, (0, 0), 5.0)[:, 512:]
    blur = focus_map(image)
    assert blur.shape == (4, 8)
    assert np.nanmax(blur[:, :4]) < np.nanmin(blur[:, 5:])


@pytest.mark.parametrize("size", [(32, 32), (33, 5000), (4000, 40)])
def test_any_size_and_no_edges(size: tuple[int, int]) -> None:
    flat = np.full((*size, 3), 200, np.uint8)
    blur = focus_map(flat)
    assert all(1 <= n <= 8 for n in blur.shape)
    assert np.isnan(blur).all()
    assert np.isnan(typical_blur(blur))
