"""Tests of crops and their batches."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from services.common.checks import MAX_CELLS_PER_CALL
from services.patching.cells import LocatedCell
from services.patching.crops import MAX_BATCH_BYTES, MAX_SIDE, MIN_SIDE, batches, cut

Bytes = NDArray[np.uint8]


def _cell(x: float, y: float, radius: float) -> LocatedCell:
    return LocatedCell(x, y, radius, 0, 0, 1, 1, 1.0)


@pytest.fixture(scope="module")
def image() -> Bytes:
    return np.random.default_rng(0).integers(0, 256, (500, 700, 3), np.uint8)


@pytest.mark.parametrize(("x", "y", "radius"), [(350.0, 250.0, 30.0), (301.5, 222.49, 41.7), (350.2, 250.8, 4.0)])
def test_a_crop_holds_four_radii_of_the_image(image: Bytes, x: float, y: float, radius: float) -> None:
    crop = cut(image, _cell(x, y, radius))
    height, width = crop.pixels.shape[:2]
    assert height == width >= max(4 * radius, MIN_SIDE)
    assert width <= max(4 * radius + 4, MIN_SIDE)
    np.testing.assert_array_equal(crop.pixels, image[crop.origin_y : crop.origin_y + height, crop.origin_x : crop.origin_x + width])
    for center, origin in ((x, crop.origin_x), (y, crop.origin_y)):
        assert center - 2 * radius >= origin - 0.5
        assert center + 2 * radius <= origin + width - 0.5


@given(x=st.floats(-0.5, 699.5), y=st.floats(-0.5, 499.5), radius=st.floats(4.0, MAX_SIDE / 4))
def test_crops_stay_inside_the_image_and_hold_the_centre(x: float, y: float, radius: float) -> None:
    numbers = np.arange(500 * 700, dtype=np.uint32).reshape(500, 700, 1).repeat(3, axis=2)
    crop = cut(numbers, _cell(x, y, radius))  # type: ignore[arg-type]
    height, width = crop.pixels.shape[:2]
    assert 0 < height <= min(500, MAX_SIDE)
    assert 0 < width <= min(700, MAX_SIDE)
    assert -0.5 <= x - crop.origin_x <= width - 0.5
    assert -0.5 <= y - crop.origin_y <= height - 0.5
    assert crop.pixels[0, 0, 0] == crop.origin_y * 700 + crop.origin_x
    right, bottom = crop.origin_x + width, crop.origin_y + height
    assert crop.origin_x == 0 or x - crop.origin_x >= 2 * radius - 0.5
    assert crop.origin_y == 0 or y - crop.origin_y >= 2 * radius - 0.5
    assert right == 700 or right - 0.5 - x >= 2 * radius - 0.5
    assert bottom == 500 or bottom - 0.5 - y >= 2 * radius - 0.5


@pytest.mark.parametrize(("radius", "reduction"), [(512, 1), (513, 2), (1024, 2), (1200, 3)])
def test_the_crop_of_a_very_large_cell_is_reduced(radius: int, reduction: int) -> None:
    crop = cut(np.zeros((5000, 5000, 3), np.uint8), _cell(2500, 2500, radius))
    assert crop.reduction == reduction
    assert min(crop.pixels.shape[:2]) <= MAX_SIDE
    assert 4 * radius - reduction <= min(crop.pixels.shape[:2]) * reduction <= 4 * radius + 4


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 64, 70])
def test_batches_hold_all_cells_in_order(image: Bytes, count: int) -> None:
    cells = [_cell(20.0 + 9 * i, 250.0, 8.0) for i in range(count)]
    found = list(batches(image, cells))
    assert [len(b) for b in found] == [MAX_CELLS_PER_CALL] * (count // 32) + [count % 32] * (count % 32 > 0)
    flat = [entry for batch in found for entry in batch]
    assert [number for number, _, _ in flat] == list(range(count))
    assert [cell for _, cell, _ in flat] == cells
    for _, cell, crop in flat:
        np.testing.assert_array_equal(crop.pixels, cut(image, cell).pixels)


def test_batches_are_bounded_in_bytes() -> None:
    ground = np.zeros((1500, 1500, 3), np.uint8)
    cells = [_cell(750, 750, 200.0)] * 9
    size = cut(ground, cells[0]).pixels.size
    found = list(batches(ground, cells))
    per_batch = MAX_BATCH_BYTES // size
    assert 1 < per_batch < 9
    assert [len(b) for b in found] == [per_batch] * (9 // per_batch) + [9 % per_batch] * (9 % per_batch > 0)


def test_a_crop_larger_than_a_batch_goes_alone() -> None:
    ground = np.zeros((2100, 2100, 3), np.uint8)
    small, large = _cell(100, 100, 10.0), _cell(1050, 1050, 500.0)
    assert cut(ground, large).pixels.size > MAX_BATCH_BYTES
    assert [[n for n, _, _ in b] for b in batches(ground, [small, large, small])] == [[0], [1], [2]]


def test_side_is_rounded_up() -> None:
    assert cut(np.zeros((200, 200, 3), np.uint8), _cell(100, 100, 10.2)).pixels.shape[0] == 2 * (math.ceil(20.4) + 1)
