"""Tests of registration: the cell in the middle, at the radius that the networks know."""

from __future__ import annotations

import math
from typing import cast

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from services.common.errors import InvalidRequestError
from services.common.phantom import CellKind, single_cell
from services.preprocessing.registration import MIN_RADIUS, RELATIVE_RADIUS, register

Bytes = NDArray[np.uint8]


def _disk(height: int, width: int, x: float, y: float, radius: float) -> Bytes:
    """A dark, softly edged disk on a light ground; pixel centres at integers."""
    rows, columns = np.mgrid[0:height, 0:width]
    cover = np.clip(radius + 0.5 - np.hypot(columns - x, rows - y), 0, 1)
    return np.repeat((220 - 180 * cover)[..., None], 3, axis=2).round().astype(np.uint8)


def _measured(pixels: Bytes) -> tuple[float, float, float]:
    cover = (220.0 - pixels[..., 0]) / 180.0
    rows, columns = np.indices(cover.shape)
    total = cover.sum()
    return float((cover * columns).sum() / total), float((cover * rows).sum() / total), math.sqrt(total / math.pi)


@pytest.mark.parametrize("side", [64, 128, 256])
@pytest.mark.parametrize(("x", "y", "radius"), [(100.0, 100.0, 30.0), (93.4, 110.7, 22.6), (101.5, 88.25, 45.0)])
def test_a_disk_is_centred_and_brought_to_size(side: int, x: float, y: float, radius: float) -> None:
    registered = register(_disk(200, 210, x, y, radius), x, y, radius, side)
    assert registered.pixels.shape == (side, side, 3)
    assert registered.pixels.dtype == np.uint8
    center_x, center_y, measured = _measured(registered.pixels)
    assert center_x == pytest.approx((side - 1) / 2, abs=0.15)
    assert center_y == pytest.approx((side - 1) / 2, abs=0.15)
    assert measured == pytest.approx(85 / 256 * side, rel=0.015)
    assert registered.upscale_factor == pytest.approx(85 / 256 * side / radius)
    assert registered.reflected_share == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("kind", [CellKind.BLAST, CellKind.NEUTROPHIL])
def test_scale_of_the_input_does_not_matter(kind: CellKind) -> None:
    cell = single_cell(2, kind, side=400, cell_radius=60.0)
    truth = cell.cells[0]
    doubled = cast(Bytes, cv2.resize(cell.image, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC))
    one = register(cell.image, truth.center_x, truth.center_y, truth.radius, 128)
    two = register(doubled, 2 * truth.center_x + 0.5, 2 * truth.center_y + 0.5, 2 * truth.radius, 128)
    assert two.upscale_factor == pytest.approx(one.upscale_factor / 2)
    difference = np.abs(one.pixels.astype(int) - two.pixels)
    assert difference.mean() < 2.5
    assert np.percentile(difference, 99) <= 12


def test_reduction_does_not_alias() -> None:
    checks = np.where(np.indices((600, 600)).sum(axis=0) % 2, 255, 0).astype(np.uint8)
    registered = register(np.repeat(checks[..., None], 3, axis=2), 300, 300, 150, 128)
    assert registered.pixels.std() < 10
    assert registered.pixels.mean() == pytest.approx(127.5, abs=3)


@pytest.mark.parametrize(("x", "y", "share"), [(-0.5, 100.0, 0.5), (209.5, 100.0, 0.5), (-0.5, -0.5, 0.75), (100.0, 199.5, 0.5)])
def test_share_that_is_reflected(x: float, y: float, share: float) -> None:
    assert register(_disk(200, 210, 100, 100, 20), x, y, 20.0, 128).reflected_share == pytest.approx(share, abs=1e-6)


def test_share_that_is_reflected_around_a_tight_crop() -> None:
    # The square has a side of 30 / RELATIVE_RADIUS px, the crop 60 px: what is missing lies on all four sides.
    registered = register(_disk(60, 60, 29.5, 29.5, 30), 29.5, 29.5, 30.0, 128)
    assert registered.reflected_share == pytest.approx(1 - (60 * RELATIVE_RADIUS / 30) ** 2)


def test_what_lies_beyond_the_border_is_reflected() -> None:
    scene = single_cell(1, CellKind.MONOCYTE, side=200, cell_radius=30.0).image
    side = 128
    radius = RELATIVE_RADIUS * side  # one pixel of the input is one of the result
    pixels = register(scene, -0.5, 99.5, radius, side).pixels
    np.testing.assert_array_equal(pixels[:, :64], pixels[:, :63:-1])
    np.testing.assert_array_equal(pixels[:, 64:], scene[36:164, :64])


@pytest.mark.parametrize("index", range(3))
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused(index: int, value: float) -> None:
    numbers = [50.0, 50.0, 20.0]
    numbers[index] = value
    x, y, radius = numbers
    with pytest.raises(InvalidRequestError) as caught:
        register(_disk(100, 100, 50, 50, 20), x, y, radius, 128)
    assert (caught.value.reason, caught.value.field) == ("CELL_NOT_FINITE", "crops")


@pytest.mark.parametrize(
    ("x", "y", "radius"),
    [
        (-0.6, 50, 20),
        (99.6, 50, 20),
        (50, -0.6, 20),
        (50, 79.6, 20),
        (50, 50, MIN_RADIUS - 0.01),
        (50, 50, 0),
        (50, 50, -20),
        (50, 50, 101),
        (50, 50, 1e30),
    ],
)
def test_cells_out_of_range_are_refused(x: float, y: float, radius: float) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        register(_disk(80, 100, 50, 50, 20), x, y, radius, 128)
    assert (caught.value.reason, caught.value.field) == ("CELL_OUTSIDE_CROP", "crops")


def test_the_input_is_left_as_it_is() -> None:
    image = _disk(200, 200, 100, 100, 90)
    before = image.copy()
    image.setflags(write=False)
    register(image, 100, 100, 90, 64)
    np.testing.assert_array_equal(image, before)
