"""Tests of the memory of decoding, as the header foretells it."""

from __future__ import annotations

import dataclasses

from services.common.image_header import ImageHeader, decode_bytes

HEADER = ImageHeader(10_000, 10_000, "PNG", "RGB", 8, 1, 0)
MEBIBYTE = 1 << 20


def test_decoding_takes_seven_bytes_a_pixel() -> None:
    assert 700_000_000 <= decode_bytes(HEADER) <= 720_000_000
    assert HEADER.decoded_bytes == 300_000_000


def test_alpha_depth_and_orientation_take_no_more() -> None:
    same = [dataclasses.replace(HEADER, mode="RGBA"), dataclasses.replace(HEADER, bits=16), dataclasses.replace(HEADER, orientation=6)]
    assert {decode_bytes(h) for h in same} == {decode_bytes(HEADER)}


def test_a_turned_tiff_is_held_twice() -> None:
    assert decode_bytes(dataclasses.replace(HEADER, format="TIFF", orientation=6)) >= 800_000_000


def test_what_the_decoder_buffers_counts() -> None:
    assert decode_bytes(dataclasses.replace(HEADER, format="JPEG", buffered=600_000_000)) >= 1_000_000_000


def test_an_image_that_may_be_read_in_all_its_bits_takes_more() -> None:
    deep = dataclasses.replace(HEADER, width=8000, height=5000, bits=16)
    assert decode_bytes(deep) >= 40_000_000 * (8 + 3)
    assert decode_bytes(deep) <= decode_bytes(HEADER), "not more than the largest image"
