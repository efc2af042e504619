"""What a JPEG 2000 codestream says of itself is read before a decoder sees it."""

from __future__ import annotations

import base64
import struct
from contextlib import suppress
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.errors import InvalidImageError
from services.patching.slides.jpeg2000 import MAX_DIVISIONS, MAX_LAYERS, check_jpeg2000, decode_jpeg2000
from services.patching.slides.ycbcr import rgb_of_ycbcr
from tests.properties import examples

TILE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
COD = b"\xff\x52"


def encoded(pixels: np.ndarray = TILE, **options: Any) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(pixels, **options))


def reason(stream: bytes, width: int = 64, height: int = 48, samples: int = 3) -> str:
    with pytest.raises(InvalidImageError) as caught:
        check_jpeg2000(stream, width, height, samples)
    assert caught.value.reason == "SLIDE_DAMAGED"
    return caught.value.message


def replaced(stream: bytes, at: int, form: str, *values: int) -> bytes:
    """A codestream with other values, counted from its beginning."""
    start = stream.index(b"\xff\x4f\xff\x51")
    changed = bytearray(stream)
    struct.pack_into(form, changed, start + at, *values)
    return bytes(changed)


@pytest.mark.parametrize("form", ["j2k", "jp2"])
@pytest.mark.parametrize("options", [{}, {"level": 40}, {"resolutions": 1}, {"reversible": True, "mct": False}], ids=str)
def test_what_writers_store_is_accepted(form: str, options: dict) -> None:
    check_jpeg2000(encoded(codecformat=form, **options), 64, 48, 3)
    check_jpeg2000(encoded(np.dstack([TILE, TILE[..., 0]]), codecformat=form, **options), 64, 48, 4)
    check_jpeg2000(encoded(TILE.astype(np.uint16) * 257, codecformat=form, **options), 64, 48, 3)


@pytest.mark.parametrize("form", ["j2k", "jp2"])
def test_another_size_or_other_samples_are_refused(form: str) -> None:
    stream = encoded(codecformat=form)
    for width, height in ((48, 64), (63, 48), (8000, 8000)):
        assert "calls itself 64 x 48 px" in reason(stream, width, height)
    assert "other samples" in reason(stream, samples=4)
    assert "other samples" in reason(encoded(TILE[..., 0].copy(), codecformat=form))
    assert "other samples" in reason(replaced(stream, 42, ">B", 30))


def test_a_palette_is_refused() -> None:
    stream = encoded(codecformat="jp2")
    at = stream.index(b"colr") - 4
    palette = struct.pack(">I4sHBB", 12, b"pclr", 1, 255, 7)
    head = stream.index(b"jp2h") - 4
    (length,) = struct.unpack(">I", stream[head : head + 4])
    changed = stream[:head] + struct.pack(">I", length + len(palette)) + stream[head + 4 : at] + palette + stream[at:]
    assert "palette" in reason(changed)


def test_more_tiles_of_its_own_than_writers_make_are_refused() -> None:
    side = 2
    while (64 // side) * (48 // side) > MAX_DIVISIONS:
        side += 1
    check_jpeg2000(replaced(encoded(codecformat="j2k"), 24, ">II", side + 1, side + 1), 64, 48, 3)
    assert "more pieces" in reason(replaced(encoded(codecformat="j2k"), 24, ">II", 1, 1))


def test_more_blocks_layers_or_packets_than_writers_make_are_refused() -> None:
    large = encoded(np.zeros((1024, 1024, 3), np.uint8), codecformat="j2k")
    at = large.index(COD) - large.index(b"\xff\x4f\xff\x51")
    for change in (
        replaced(large, at + 6, ">H", MAX_LAYERS + 1),
        replaced(large, at + 9, ">B", 33),
        replaced(large, at + 10, ">BB", 0, 0),
    ):
        assert "more pieces" in reason(change, 1024, 1024)
    precincts = bytearray(large)
    struct.pack_into(">HB", precincts, at + 2, 12 + 6, 1)
    precincts[at + 14 : at + 14] = bytes(6)
    assert "more pieces" in reason(bytes(precincts), 1024, 1024)


def test_a_coding_of_its_own_in_a_part_counts_too() -> None:
    large = encoded(np.zeros((1024, 1024, 3), np.uint8), codecformat="j2k")
    at = large.index(COD)
    (length,) = struct.unpack(">H", large[at + 2 : at + 4])
    coding = bytearray(large[at : at + 2 + length])
    coding[10:12] = b"\0\0"
    part = large.index(b"\xff\x90") + 12
    assert "more pieces" in reason(large[:part] + bytes(coding) + large[part:], 1024, 1024)


def test_what_hides_behind_an_unknown_marker_is_refused() -> None:
    stream = encoded(codecformat="j2k")
    at = stream.index(COD)
    assert "no JPEG 2000" in reason(stream[:at] + b"\xff\x30" + stream[at:])


def ycbcr(rgb: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb)[..., (0, 2, 1)])


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("form", ["j2k", "jp2"])
def test_a_transform_gives_rgb_whatever_the_label(form: str, labelled: bool) -> None:
    for options in ({"reversible": True}, {"level": 0}):
        assert np.abs(decode_jpeg2000(encoded(codecformat=form, mct=True, **options), labelled).astype(int) - TILE).max() <= 2


@pytest.mark.parametrize("form", ["j2k", "jp2"])
def test_without_a_transform_samples_are_what_they_are_called(form: str) -> None:
    assert np.array_equal(decode_jpeg2000(encoded(codecformat=form, mct=False, reversible=True), False), TILE)
    stored = encoded(ycbcr(TILE), codecformat=form, mct=False, reversible=True)
    assert np.array_equal(decode_jpeg2000(stored, True), rgb_of_ycbcr(ycbcr(TILE)))
    boxed = encoded(ycbcr(TILE), codecformat="jp2", colorspace="SYCC", mct=False, reversible=True)
    for labelled in (False, True):
        assert np.array_equal(decode_jpeg2000(boxed, labelled), rgb_of_ycbcr(ycbcr(TILE))), "the box says it, and it is converted once"


REDUCED = {
    "4:2:2": (
        "/0//UQAvAAAAAAAgAAAAIAAAAAAAAAAAAAABAAAAAQAAAAAAAAAAAAADBwEBBwIBBwIB/1IADAAAAAEABgICAAD/XAApIn8gfuB+4H6gdvB28HbAbwBvAG7gZ1BnUGdoUAVQBVBHV9NX"
        "01di/2QAEQABTGF2YzYyLjI4LjEwMv+QAAoAAAAAADMAAf+Tz/wADAQbH8P5Awmbf8P5AwM5fwAAAAAAAAAAAAAAAAAAAAAAAP/Z"
    ),
    "4:2:0": (
        "/0//UQAvAAAAAAAgAAAAIAAAAAAAAAAAAAABAAAAAQAAAAAAAAAAAAADBwEBBwICBwIC/1IADAAAAAEABgICAAD/XAApIn8gfuB+4H6gdvB28HbAbwBvAG7gZ1BnUGdoUAVQBVBHV9NX"
        "01di/2QAEQABTGF2YzYyLjI4LjEwMv+QAAoAAAAAADMAAf+Tz/wADAQbH8P5Awmbf8P5AwM5fwAAAAAAAAAAAAAAAAAAAAAAAP/Z"
    ),
}
"""Codestreams of 32 x 32 px in one colour, Y 200, Cb 100, Cr 150, that FFmpeg wrote."""


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("name", REDUCED)
def test_colours_at_reduced_size_are_converted_once(name: str, labelled: bool) -> None:
    stream = base64.b64decode(REDUCED[name])
    check_jpeg2000(stream, 32, 32, 3)
    assert np.abs(decode_jpeg2000(stream, labelled).astype(int) - (231, 194, 150)).max() <= 1


def test_other_reduced_sizes_and_mixed_transforms_are_called_what_they_are() -> None:
    with pytest.raises(InvalidImageError, match="reduced size") as caught:
        check_jpeg2000(replaced(base64.b64decode(REDUCED["4:2:2"]), 46, ">BB", 4, 1), 32, 32, 3)
    assert caught.value.reason == "SLIDE_UNSUPPORTED"
    stream = encoded(codecformat="j2k", mct=True)
    at = stream.index(COD)
    (length,) = struct.unpack(">H", stream[at + 2 : at + 4])
    coding = bytearray(stream[at : at + 2 + length])
    coding[8] = 0
    part = stream.index(b"\xff\x90") + 12
    with pytest.raises(InvalidImageError, match="mixes") as caught:
        decode_jpeg2000(stream[:part] + bytes(coding) + stream[part:], False)
    assert caught.value.reason == "SLIDE_UNSUPPORTED"


@settings(max_examples=examples(300), deadline=None)
@given(data=st.binary(max_size=80), at=st.integers(0, 300), valid=st.sampled_from(["j2k", "jp2", ""]))
def test_whatever_the_bytes_are_only_typed_errors_come(data: bytes, at: int, valid: str) -> None:
    stream = encoded(codecformat=valid) if valid else b""
    with suppress(InvalidImageError):
        check_jpeg2000(stream[:at] + data + stream[at + len(data) :], 64, 48, 3)
