"""What a JPEG or JPEG-LS stream says of itself is read before a decoder sees it."""

from __future__ import annotations

import io
import struct
from contextlib import suppress
from typing import Any

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from services.common.errors import InvalidImageError
from services.patching.slides.jpeg import MAX_SCANS, check_jpeg, check_jpeg_tables, jpeg_frame
from tests.properties import examples

TILE = np.random.default_rng(0).integers(0, 4, (48, 64, 3), np.uint8) * 20


def jpeg(pixels: np.ndarray = TILE, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def jpeg_ls(pixels: np.ndarray = TILE) -> bytes:
    return bytes(imagecodecs.jpegls_encode(pixels))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 1}, {"optimize": True, "subsampling": 0}], ids=str)
def test_what_writers_store_is_accepted(options: dict) -> None:
    check_jpeg(jpeg(TILE, **options), 64, 48, 3)
    check_jpeg(jpeg_ls(), 64, 48, 3, is_ls=True)


@pytest.mark.parametrize("stream", [jpeg(), jpeg(progressive=True), jpeg_ls()], ids=["baseline", "progressive", "JPEG-LS"])
def test_another_size_is_refused(stream: bytes) -> None:
    for width, height in ((48, 64), (64, 47), (63, 48), (128, 96)):
        with pytest.raises(InvalidImageError) as caught:
            check_jpeg(stream, width, height, 3, is_ls=jpeg_frame(stream).lossless_ls)
        assert caught.value.reason == "SLIDE_DAMAGED"


def test_other_samples_or_another_kind_are_refused() -> None:
    for stream, is_ls in ((jpeg(TILE[..., 0]), False), (jpeg(), True), (jpeg_ls(), False), (jpeg_ls(TILE[..., 0].copy()), True)):
        with pytest.raises(InvalidImageError, match="other samples"):
            check_jpeg(stream, 64, 48, 3, is_ls=is_ls)


def test_a_size_that_an_extension_of_jpeg_ls_replaces_is_refused() -> None:
    stream = jpeg_ls()
    extension = b"\xff\xf8" + struct.pack(">HBBHH", 8, 4, 2, 9000, 9000)
    scan = stream.index(b"\xff\xda")
    for at in (2, scan):
        with pytest.raises(InvalidImageError, match="size twice"):
            check_jpeg(stream[:at] + extension + stream[at:], 64, 48, 3, is_ls=True)


def test_more_scans_than_writers_store_are_refused() -> None:
    stream = jpeg(progressive=True)
    scan = stream.rindex(b"\xff\xda")
    many = stream[:-2] + (MAX_SCANS + 1) * stream[scan:-2] + stream[-2:]
    with pytest.raises(InvalidImageError, match="scans"):
        check_jpeg(many, 64, 48, 3)


def test_tables_hold_tables_only() -> None:
    whole = jpeg()
    frame = whole.index(b"\xff\xc0")
    tables = whole[:frame] + b"\xff\xd9"
    check_jpeg_tables(b"")
    check_jpeg_tables(tables)
    check_jpeg_tables(tables[:-2])
    without_scan = whole[: whole.index(b"\xff\xda")] + b"\xff\xd9"
    for lying in (without_scan, whole, tables[:-2] + whole[frame:], b"\xff\xd8" + bytes(70_000), b"none", b"\xff\xd8\xff\xe0\0\x02junk"):
        with pytest.raises(InvalidImageError, match="tables"):
            check_jpeg_tables(lying)


@settings(max_examples=examples(300), deadline=None)
@given(data=st.binary(max_size=80), at=st.integers(0, 200), valid=st.booleans(), is_ls=st.booleans())
def test_whatever_the_bytes_are_only_typed_errors_come(data: bytes, at: int, valid: bool, is_ls: bool) -> None:
    stream = jpeg()[:at] + data + jpeg()[at:] if valid else data
    with suppress(InvalidImageError):
        check_jpeg(stream, 64, 48, 3, is_ls=is_ls)
    with suppress(InvalidImageError):
        check_jpeg_tables(stream)
