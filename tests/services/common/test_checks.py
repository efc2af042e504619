"""Tests of checks of request fields and of the way between bytes and arrays."""

from __future__ import annotations

import math

import numpy as np
import pytest

from services.common.arrays import pixels_from_bytes
from services.common.checks import MAX_CELLS_PER_CALL, check_count, check_identifier, check_microns_per_pixel, check_text
from services.common.errors import InvalidRequestError


@pytest.mark.parametrize("value", ["", "a", "Request 7/b~", "x" * 128])
def test_identifiers_that_are_accepted(value: str) -> None:
    check_identifier(value, "request_id")


@pytest.mark.parametrize("value", ["x" * 129, "line\nbreak", "tab\t", "naïve", "\x7f", "\x00", "٣"])
def test_identifiers_that_are_refused(value: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_identifier(value, "specimen")
    assert (caught.value.reason, caught.value.field) == ("IDENTIFIER_INVALID", "specimen")
    assert value not in caught.value.message


@pytest.mark.parametrize(
    ("value", "expected"), [(0.0, None), (-0.0, None), (0.01, 0.01), (float(np.float32(0.01)), float(np.float32(0.01))), (0.25, 0.25), (10.0, 10.0)]
)
def test_scales_that_are_accepted(value: float, expected: float | None) -> None:
    assert check_microns_per_pixel(value) == expected


@pytest.mark.parametrize("value", [-1.0, 0.0099, 10.01, math.nan, math.inf, -math.inf])
def test_scales_that_are_refused(value: float) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_microns_per_pixel(value)
    assert (caught.value.reason, caught.value.field) == ("MICRONS_PER_PIXEL_OUT_OF_RANGE", "microns_per_pixel")


@pytest.mark.parametrize("count", [1, MAX_CELLS_PER_CALL])
def test_counts_that_are_accepted(count: int) -> None:
    check_count([0] * count, "crops")


@pytest.mark.parametrize("count", [0, MAX_CELLS_PER_CALL + 1])
def test_counts_that_are_refused(count: int) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_count([0] * count, "crops")
    assert (caught.value.reason, caught.value.field) == ("BATCH_SIZE_OUT_OF_RANGE", "crops")


def test_pixels_come_back() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    np.testing.assert_array_equal(pixels_from_bytes(pixels.tobytes(), 5, 7, "crops"), pixels)


@pytest.mark.parametrize(("length", "height", "width"), [(0, 0, 0), (104, 5, 7), (106, 5, 7), (105, -5, -7), (105, 7, 0), (12, 2**31 - 1, 2**31 - 1)])
def test_pixels_of_the_wrong_size_are_refused(length: int, height: int, width: int) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        pixels_from_bytes(bytes(length), height, width, "crops")
    assert (caught.value.reason, caught.value.field) == ("PIXELS_WRONG_SIZE", "crops")


@pytest.mark.parametrize("text", ["a", "Dr Á", "x" * 128])
def test_texts_that_are_accepted(text: str) -> None:
    check_text(text, "confirmed_by")


@pytest.mark.parametrize("text", ["", " ", "x" * 129, "line\nbreak", "\x00"])
def test_texts_that_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_text(text, "confirmed_by")
    assert (caught.value.reason, caught.value.field) == ("TEXT_INVALID", "confirmed_by")
