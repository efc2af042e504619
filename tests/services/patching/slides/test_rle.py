"""Frames in run lengths: planes of the size that the header says, and nothing else."""

from __future__ import annotations

import struct
from contextlib import suppress

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.common.errors import InvalidImageError
from services.patching.slides.rle import decode_rle
from tests.properties import examples

TILE = np.random.default_rng(0).integers(0, 4, (48, 64, 3), np.uint8)


def encode_rle(tile: np.ndarray) -> bytes:
    """A frame as DICOM stores it: a head, then a plane for each colour, each of an even number of bytes."""
    planes = [bytes(imagecodecs.packbits_encode(np.ascontiguousarray(tile[..., i]).tobytes())) for i in range(tile.shape[2])]
    return joined([plane + b"\0" * (len(plane) % 2) for plane in planes])


def joined(planes: list[bytes]) -> bytes:
    offsets = [64 + sum(map(len, planes[:i])) for i in range(len(planes))]
    return struct.pack("<16I", len(planes), *offsets, *([0] * (15 - len(planes)))) + b"".join(planes)


def test_pixels_come_back() -> None:
    assert np.array_equal(decode_rle(encode_rle(TILE), 64, 48), TILE)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        bytes(64),
        encode_rle(TILE[..., :2]),
        encode_rle(TILE[:40]),
        encode_rle(np.zeros((300, 300, 3), np.uint8)),
        struct.pack("<16I", 3, 64, 64, 64, *([0] * 12)) + bytes(100),
        struct.pack("<16I", 3, 64, 2**31, 2**31 + 2, *([0] * 12)) + bytes(100),
        struct.pack("<16I", 3, 0, 64, 80, *([0] * 12)) + bytes(100),
    ],
    ids=["empty", "no planes", "two planes", "fewer rows", "more rows", "no length", "beyond the end", "in the head"],
)
def test_other_planes_than_the_header_says_are_refused(frame: bytes) -> None:
    with pytest.raises(InvalidImageError) as caught:
        decode_rle(frame, 64, 48)
    assert caught.value.reason == "SLIDE_DAMAGED"


def test_no_plane_is_unpacked_beyond_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = imagecodecs.packbits_decode

    def noted(data: bytes, out: int) -> object:
        sizes.append(out)
        return real(data, out=out)

    monkeypatch.setattr(imagecodecs, "packbits_decode", noted)
    with pytest.raises(InvalidImageError):
        decode_rle(encode_rle(np.zeros((300, 300, 3), np.uint8)), 64, 48)
    assert set(sizes) == {64 * 48}


@settings(max_examples=examples(200), deadline=None)
@given(data=st.binary(max_size=300), head=st.booleans())
def test_whatever_the_bytes_are_only_typed_errors_come(data: bytes, head: bool) -> None:
    with suppress(InvalidImageError):
        assert decode_rle((encode_rle(TILE)[:64] if head else b"") + data, 64, 48).shape == (48, 64, 3)
