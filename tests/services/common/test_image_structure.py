"""Tests of what files consist of: pieces that are too many, and scans as libjpeg counts them."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from services.common.errors import InvalidImageError
from services.common.image_structure import (
    MAX_JUNK,
    MAX_PIECES,
    MAX_SEGMENTS,
    Pieces,
    check_pieces,
    components_of_first_scan,
    count_scans,
    count_scans_of_pieces,
)

SCAN = b"\xff\xda"


def _picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 96, 3), np.uint8))


def _encoded(form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    _picture().save(buffer, form, **options)
    return buffer.getvalue()


def _is_refused(encoded: bytes) -> bool:
    try:
        check_pieces(encoded)
    except InvalidImageError as error:
        return error.reason == "IMAGE_TOO_LARGE"
    return False


def _with_chunks(count: int) -> bytes:
    png = _encoded("PNG")
    empty = struct.pack(">I4sI", 0, b"prVt", zlib.crc32(b"prVt"))
    return png[:33] + empty * count + png[33:]


def test_a_png_of_very_many_chunks_is_refused() -> None:
    assert not _is_refused(_with_chunks(MAX_PIECES // 2))
    assert _is_refused(_with_chunks(MAX_PIECES + 1))


def test_a_jpeg_of_very_many_segments_is_refused() -> None:
    jpeg = _encoded("JPEG")
    comment = b"\xff\xfe\x00\x02"
    assert not _is_refused(jpeg[:2] + comment * (MAX_SEGMENTS // 2) + jpeg[2:])
    assert _is_refused(jpeg[:2] + comment * (MAX_SEGMENTS + 1) + jpeg[2:])


def test_a_jpeg_with_much_junk_in_its_header_is_refused() -> None:
    jpeg = _encoded("JPEG")
    first = 4 + int.from_bytes(jpeg[4:6], "big")
    assert not _is_refused(jpeg[:first] + bytes(MAX_JUNK // 2) + jpeg[first:])
    assert _is_refused(jpeg[:first] + bytes(2 * MAX_JUNK) + jpeg[first:])
    assert _is_refused(b"\xff\xd8\xff" + bytes(2 * MAX_JUNK))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("tag", [273, 324])
def test_a_tiff_of_very_many_pieces_is_refused(order: str, tag: int) -> None:
    def tiff(count: int) -> bytes:
        start = (b"II" if order == "<" else b"MM") + struct.pack(order + "HL", 42, 8)
        return start + struct.pack(order + "HHHLL", 1, tag, 4, count, 64) + bytes(64)

    assert not _is_refused(tiff(MAX_PIECES))
    assert _is_refused(tiff(MAX_PIECES + 1))


def test_a_bigtiff_of_very_many_pieces_is_refused() -> None:
    start = b"II" + struct.pack("<HHHQ", 43, 8, 0, 16)
    assert _is_refused(start + struct.pack("<QHHQQ", 1, 273, 16, MAX_PIECES + 1, 64) + bytes(64))


@pytest.mark.parametrize("encoded", [b"", b"II*\0", b"MM\0*\xff\xff\xff\xff", b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"BM", b"II+\0" + b"\xff" * 40])
def test_damaged_files_pass_here(encoded: bytes) -> None:
    assert not _is_refused(encoded)


def test_scans_are_counted() -> None:
    assert count_scans(_encoded("JPEG")) == 1
    progressive = _encoded("JPEG", progressive=True)
    assert count_scans(progressive) == progressive.count(SCAN) > 5


def test_components_of_the_first_scan() -> None:
    assert components_of_first_scan(_encoded("JPEG")) == 3
    assert components_of_first_scan(_encoded("JPEG")[:100]) == 0


def test_scans_of_metadata_and_behind_the_image_are_not_counted() -> None:
    jpeg = _encoded("JPEG", comment=SCAN * 1000, exif=b"Exif\0\0" + SCAN * 1000, icc_profile=SCAN * 1000)
    behind = bytes([0, 2]) + (SCAN + bytes([0, 2])) * 1000
    assert (jpeg + behind).count(SCAN) > 4000
    assert count_scans(jpeg + behind) == 1


def test_restart_markers_and_padding_do_not_end_a_scan() -> None:
    jpeg = _encoded("JPEG", restart_marker_blocks=1)
    assert jpeg.count(b"\xff\xd0") > 0
    assert count_scans(jpeg) == 1
    at = jpeg.index(SCAN)
    assert count_scans(jpeg[:at] + b"\xff\xff\xff" + jpeg[at:]) == 1
    assert count_scans(jpeg[:at] + jpeg[at:-2] * 5 + jpeg[-2:]) == 5


def test_segments_without_end_count_as_scans() -> None:
    jpeg = _encoded("JPEG")
    assert count_scans(jpeg[:-2] + b"\xff\xfe\x00\x02" * (MAX_PIECES + 1) + jpeg[-2:]) == MAX_PIECES


def test_scans_of_shared_pieces_count_as_often_as_they_are_decoded() -> None:
    data = bytes(10) + SCAN * 3 + bytes(84)
    assert count_scans_of_pieces(data, Pieces([(10, 6), (10, 6), (40, 10)], 64)) == 6


def test_pieces_that_claim_more_than_the_file_are_refused() -> None:
    with pytest.raises(InvalidImageError) as caught:
        count_scans_of_pieces(bytes(100), Pieces([(0, 100)] * 5, 64))
    assert caught.value.reason == "IMAGE_TRUNCATED"
