"""The size of an image from its header, without decoding."""

from __future__ import annotations

import io
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from services.common.image_codec import read_header
from services.common.image_size import stored_pixels


def _encoded(kind: str, **options: Any) -> bytes:
    target = io.BytesIO()
    Image.effect_mandelbrot((123, 77), (-2, -1, 1, 1), 9).convert("RGB").save(target, kind, **options)
    return target.getvalue()


FILES = {
    "png": _encoded("PNG"),
    "jpeg": _encoded("JPEG"),
    "progressive jpeg": _encoded("JPEG", progressive=True),
    "jpeg with a comment and a profile": _encoded("JPEG", comment=b"x" * 60_000, icc_profile=bytes(200_000)),
    "bmp": _encoded("BMP"),
    "tiff": _encoded("TIFF"),
    "tiff of strips": _encoded("TIFF", compression="tiff_lzw"),
}


@pytest.mark.parametrize("name", FILES)
def test_it_is_the_size_that_the_codec_reads(name: str) -> None:
    assert stored_pixels(FILES[name]) == read_header(FILES[name]).pixels == 123 * 77


def test_a_big_endian_tiff_and_a_bitmap_from_the_top_are_read_too() -> None:
    tiff = b"MM\0*" + (8).to_bytes(4, "big") + (2).to_bytes(2, "big")
    tiff += b"".join(
        tag.to_bytes(2, "big") + kind + size for tag, kind, size in ((256, b"\0\3\0\0\0\1", b"\0\x50\0\0"), (257, b"\0\4\0\0\0\1", b"\0\0\0\x10"))
    )
    assert stored_pixels(tiff) == 80 * 16
    flipped = bytearray(FILES["bmp"])
    flipped[22:26] = (-77).to_bytes(4, "little", signed=True)
    assert stored_pixels(bytes(flipped)) == 123 * 77


@pytest.mark.parametrize(
    "content", [b"", b"x", b"\xff\xd8", b"\xff\xd8\xff\xd8" * 9, b"\xff\xd8" + bytes(99), b"BM", b"II*\0\xff\xff\xff\xff", b"GIF89a" + bytes(20)]
)
def test_what_has_no_readable_header_has_no_pixels(content: bytes) -> None:
    assert stored_pixels(content) == 0


@given(st.sampled_from(sorted(FILES)), st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=6), st.integers(0, 300))
def test_a_damaged_file_is_never_an_error(name: str, changes: list[tuple[int, int]], end: int) -> None:
    damaged = bytearray(FILES[name])
    for at, value in changes:
        damaged[at] = value
    for content in (bytes(damaged), bytes(damaged[:end])):
        assert stored_pixels(content) >= 0


@pytest.mark.parametrize("junk", [b"\xff" * 5_000_000, b"\xff\xe1\0\2" * 1_000_000, b"\xff\xd0" * 3_000_000])
def test_it_takes_no_time_however_large_the_file(junk: bytes) -> None:
    started = time.process_time()
    assert stored_pixels(b"\xff\xd8" + junk) == 0
    assert time.process_time() - started < 0.1
