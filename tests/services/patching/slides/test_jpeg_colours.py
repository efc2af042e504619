"""RGB or YCbCr: what a JPEG stream says of its colours counts more than its label."""

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

from services.patching.slides.jpeg_colours import decode_jpeg, jpeg_colours
from services.patching.slides.ycbcr import rgb_of_ycbcr
from tests.properties import examples

TILE = np.asarray(Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)).resize((64, 48), Image.Resampling.BICUBIC))
JFIF = b"\xff\xe0" + struct.pack(">H", 16) + b"JFIF\0\1\1\0\0\1\0\1\0\0"


def jpeg(pixels: np.ndarray = TILE, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


def bare(stream: bytes) -> bytes:
    """A stream without its markers of JFIF and Adobe."""
    for marker in (b"\xff\xe0", b"\xff\xee"):
        at = stream.find(marker)
        if 0 <= at < stream.index(b"\xff\xda"):
            stream = stream[:at] + stream[at + 2 + struct.unpack(">H", stream[at + 2 : at + 4])[0] :]
    return stream


def marked(stream: bytes, segment: bytes) -> bytes:
    return stream[:2] + segment + stream[2:]


def adobe(transform: int) -> bytes:
    return b"\xff\xee" + struct.pack(">H", 14) + b"Adobe\0\x64\0\0\0\0" + bytes([transform])


def named(stream: bytes, ids: bytes) -> bytes:
    """A stream whose samples have other names, in its frame and in its scan."""
    changed = bytearray(stream)
    frame, scan = stream.index(b"\xff\xc0"), stream.index(b"\xff\xda")
    for i, name in enumerate(ids):
        changed[frame + 10 + 3 * i] = changed[scan + 5 + 2 * i] = name
    return bytes(changed)


FULL = bare(jpeg(subsampling=0))
"""YCbCr of full size, with samples 1, 2, 3 and no marker."""
RGB = bare(jpeg(keep_rgb=True))


@pytest.mark.parametrize("labelled", [False, True], ids=["called RGB", "called YCbCr"])
@pytest.mark.parametrize(
    ("stream", "ycbcr"),
    [
        (jpeg(), True),
        (jpeg(subsampling=0), True),
        (marked(bare(jpeg()), adobe(1)), True),
        (marked(FULL, adobe(1)), True),
        (marked(named(FULL, bytes(3)), adobe(1)), True),
        (FULL, True),
        (bare(jpeg()), True),
        (named(bare(jpeg()), bytes([0, 1, 2])), True),
        (jpeg(keep_rgb=True), False),
        (RGB, False),
        (named(RGB, b"rgb"), False),
        (marked(named(RGB, bytes([1, 2, 3])), adobe(0)), False),
    ],
    ids=[
        "JFIF",
        "JFIF of full size",
        "Adobe",
        "Adobe of full size",
        "Adobe of full size, unnumbered",
        "1, 2, 3",
        "reduced",
        "reduced, 0, 1, 2",
        "RGB of Adobe",
        "R, G, B",
        "r, g, b",
        "RGB of Adobe, 1, 2, 3",
    ],
)
def test_what_a_stream_says_counts(stream: bytes, ycbcr: bool, labelled: bool) -> None:
    assert jpeg_colours(stream).are_ycbcr(labelled, trust_numbers=True) is ycbcr
    assert np.abs(decode_jpeg(stream, labelled).astype(int) - TILE).mean() < 4


@pytest.mark.parametrize("ids", [bytes([0, 1, 2]), bytes([7, 8, 9])])
def test_where_a_stream_says_nothing_its_label_counts(ids: bytes) -> None:
    assert np.abs(decode_jpeg(named(RGB, ids), False).astype(int) - TILE).mean() < 4
    assert np.abs(decode_jpeg(named(FULL, ids), True).astype(int) - TILE).mean() < 4
    assert not jpeg_colours(FULL).are_ycbcr(False, trust_numbers=False)


@pytest.mark.parametrize("labelled", [False, True])
def test_where_a_stream_contradicts_itself_its_label_counts(labelled: bool) -> None:
    for stream in (marked(RGB, JFIF), marked(marked(FULL, adobe(0)), JFIF), marked(RGB, adobe(1))):
        assert jpeg_colours(stream).are_ycbcr(labelled, trust_numbers=True) is labelled


def test_lossless_samples_are_numbered_whatever_they_are() -> None:
    stream = bytes(imagecodecs.jpeg8_encode(TILE, lossless=True, colorspace="RGB", outcolorspace="RGB"))
    assert np.array_equal(decode_jpeg(stream, True), TILE), "the marker and the names say RGB"
    at = stream.index(b"\xff\xc3")
    numbered = bytearray(bare(stream))
    at, scan = numbered.index(b"\xff\xc3"), numbered.index(b"\xff\xda")
    for i in range(3):
        numbered[at + 10 + 3 * i] = numbered[scan + 5 + 2 * i] = i + 1
    assert np.array_equal(decode_jpeg(bytes(numbered), False), TILE)
    assert np.array_equal(decode_jpeg(bytes(numbered), True), rgb_of_ycbcr(TILE))


def test_markers_in_shared_tables_count() -> None:
    stream, tables = named(FULL, bytes([0, 1, 2])), b"\xff\xd8" + adobe(1) + b"\xff\xd9"
    assert jpeg_colours(stream, tables).are_ycbcr(False, trust_numbers=False)
    assert not jpeg_colours(stream).are_ycbcr(False, trust_numbers=False)


@settings(max_examples=examples(300), deadline=None)
@given(data=st.binary(max_size=80), at=st.integers(0, 200))
def test_whatever_the_bytes_are_the_head_is_read(data: bytes, at: int) -> None:
    stream = jpeg()
    with suppress(StopIteration):
        jpeg_colours(stream[:at] + data + stream[at:], data)
    jpeg_colours(data)
