"""Tests of the estimated light against the light that was drawn."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from services.common.phantom import CellKind, PhantomOptions, single_cell, smear_field
from services.patching.light import MAX_FINE_CHANGE, MIN_UNEVEN_SIDE, background_light

pytestmark = pytest.mark.slow


def _bare(light: float, width: int = 800, height: int = 600) -> PhantomOptions:
    return PhantomOptions(width=width, height=height, cells=0, platelets=0, red_cell_density=0.0, light=light, label=False, noise=0.0, blur_sigma=0.0)


@pytest.mark.parametrize("density", [0.1, 0.35, 0.6])
@pytest.mark.parametrize("light", [0.0, 0.2, 0.5])
def test_the_light_is_found_however_much_of_it_the_cells_cover(density: float, light: float) -> None:
    options = PhantomOptions(width=800, height=600, cells=8, cell_radius=32.0, red_cell_density=density, light=light, label=False)
    drawn = smear_field(7, _bare(light)).image.astype(float)
    error = np.log(background_light(smear_field(7, options).image) / drawn)
    assert float(np.percentile(np.abs(error), 95)) < 0.06


def test_a_coloured_ring_is_followed() -> None:
    """A greenish spot in the middle of a reddish field, as of a badly centred condenser."""
    rows, columns = np.mgrid[-1:1:600j, -1:1:960j]
    spot = np.exp(-(rows**2 + columns**2) / 0.5)[..., None]
    lamp = np.array([200.0, 130.0, 140.0]) * (1 - spot) + np.array([110.0, 125.0, 115.0]) * spot
    density = -np.log(smear_field(3, PhantomOptions(width=960, height=600, light=0.0, label=False)).image / np.array([250.0, 229.0, 209.0]))
    seen = np.clip(lamp * np.exp(-density), 0, 255).astype(np.uint8)
    assert float(np.percentile(np.abs(np.log(background_light(seen) / lamp)), 95)) < 0.08


@pytest.mark.parametrize("radius", [60.0, 100.0, 130.0])
def test_a_cell_that_fills_a_crop_is_not_taken_for_shade(radius: float) -> None:
    options = PhantomOptions(light=0.0, label=False, platelets=0)
    crop = single_cell(3, CellKind.LYMPHOCYTE, side=400, cell_radius=radius, options=options).image
    middle = background_light(crop)[200, 200]
    np.testing.assert_allclose(middle, (250, 229, 209), rtol=0.12)


def test_a_clump_that_fills_a_third_of_a_field_is_hardly_followed() -> None:
    field = np.full((600, 800, 3), (230, 220, 215), np.uint8)
    cv2.circle(field, (400, 300), 210, (90, 60, 140), cv2.FILLED)
    assert float(np.log(np.array([230, 220, 215]) / background_light(field)[300, 400]).max()) < MAX_FINE_CHANGE + 0.1


def test_small_images_have_one_light() -> None:
    image = np.random.default_rng(0).integers(0, 256, (MIN_UNEVEN_SIDE - 1, 900, 3), np.uint8)
    light = background_light(image)
    assert light.shape == image.shape
    assert np.unique(light.reshape(-1, 3), axis=0).shape == (1, 3)


@pytest.mark.parametrize("level", [0, 255])
def test_images_of_one_level_have_that_light(level: int) -> None:
    image = np.full((500, 700, 3), level, np.uint8)
    np.testing.assert_allclose(background_light(image), max(level, 1), atol=1.5)
