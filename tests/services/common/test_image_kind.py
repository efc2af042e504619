"""What a file is, by its first bytes."""

from __future__ import annotations

import io

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from services.common.image_kind import refusal_of, tiff_facts


def _tiff(array: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("encoded", "name"),
    [
        (b"RIFF\0\0\0\0WEBPVP8 ", "WebP"),
        (b"\0\0\0\x1cftypavif", "AVIF"),
        (b"\0\0\0\x18ftypheic", "HEIF"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\xff\x0a\0", "JPEG XL"),
        (bytes(128) + b"DICM", "dl4all slide"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X", "macOS"),
        (b"GIF89a", "GIF"),
    ],
)
def test_known_files_are_named(encoded: bytes, name: str) -> None:
    text = refusal_of(encoded)
    assert name in text
    assert "JPEG, PNG, TIFF and BMP" in text


@pytest.mark.parametrize(
    ("encoded", "words"),
    [
        (imagecodecs.jpeg_encode(np.full((40, 50, 3), 900, np.uint16), bitspersample=12), "12 bit"),
        (imagecodecs.jpegls_encode(np.zeros((40, 50, 3), np.uint8)), "JPEG-LS"),
        (b"\xff\xd8\xff\xc3\0\x0b\x08\0\x20\0\x20\1\1\x11\0", "lossless"),
        (b"\xff\xd8\xff\xc9\0\x0b\x08\0\x20\0\x20\1\1\x11\0", "arithmetic"),
        (b"\xff\xd8\xff\xd9", "not an image"),
    ],
)
def test_jpegs_that_are_not_read_are_named(encoded: bytes, words: str) -> None:
    assert words in refusal_of(bytes(encoded))


def test_unknown_bytes_are_not_named() -> None:
    assert "not an image" in refusal_of(b"\0" * 200)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_facts_of_a_tiff(byteorder: str, bigtiff: bool) -> None:
    array = np.zeros((3, 40, 50), np.uint16)
    encoded = _tiff(
        array, byteorder=byteorder, bigtiff=bigtiff, planarconfig="separate", photometric="rgb", extratags=[(281, "H", 3, (4095,) * 3, True)]
    )
    facts = tiff_facts(encoded)
    assert facts is not None
    assert (facts.bits, facts.is_planar, facts.max_sample, facts.refusal) == (16, True, 4095, "")


@pytest.mark.parametrize(
    ("dtype", "options", "words"),
    [
        (np.float32, {}, "floating-point"),
        (np.uint32, {}, "32 bits"),
        (np.uint8, {"compression": "jpeg2000"}, "JPEG 2000"),
        (np.uint8, {"compression": "webp"}, "WebP"),
        (np.uint8, {"compression": "jpegxl"}, "JPEG XL"),
        (np.uint8, {"compression": "zstd"}, "Zstandard"),
    ],
)
def test_a_tiff_that_is_not_read_is_named(dtype: type, options: dict[str, str], words: str) -> None:
    facts = tiff_facts(_tiff(np.zeros((40, 50, 3), dtype), photometric="rgb", **options))
    assert facts is not None
    assert words in facts.refusal


def test_what_is_no_tiff_has_no_facts() -> None:
    assert tiff_facts(b"\xff\xd8\xff") is None
    assert tiff_facts(b"II*\0\xff\xff\xff\xff") is None


@given(st.binary(max_size=200))
def test_any_directory_is_read_or_not(data: bytes) -> None:
    tiff_facts(b"II*\0\x08\0\0\0" + data)
    tiff_facts(b"MM\0+\0\x08\0\0" + data)
    assert refusal_of(data)
