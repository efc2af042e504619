"""A single image in DICOM is a slide of one tile, or of strips."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pytest
from PIL import Image

from services.common.errors import InvalidImageError
from services.patching.slides import dicom_single
from services.patching.slides.dicom_header import SINGLE_IMAGES, Syntax
from services.patching.slides.opening import open_slide
from tests.services.patching.slides.dicom_files import write_single
from tests.services.patching.slides.test_rle import encode_rle

PIXELS = np.ascontiguousarray(
    np.asarray(Image.fromarray(np.random.default_rng(0).integers(0, 256, (15, 23, 3), np.uint8)).resize((230, 150), Image.Resampling.BICUBIC))
)


def read(path: Path) -> np.ndarray:
    slide = open_slide(path)
    try:
        return slide.read(0, 0, slide.facts.width, slide.facts.height)
    finally:
        slide.close()


def refused(path: Path) -> InvalidImageError:
    with pytest.raises(InvalidImageError) as caught:
        read(path)
    return caught.value


@pytest.mark.parametrize("sop_class", sorted(SINGLE_IMAGES))
@pytest.mark.parametrize("syntax", [Syntax.IMPLICIT, Syntax.EXPLICIT])
def test_uncompressed_pixels_come_back(tmp_path: Path, sop_class: str, syntax: str) -> None:
    assert np.array_equal(read(write_single(tmp_path / "x.dcm", PIXELS, sop_class, syntax)), PIXELS)


def test_they_are_read_in_strips_and_their_scale_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_single, "_STRIP_BYTES", 3 * 230 * 16)
    slide = open_slide(write_single(tmp_path / "x.dcm", PIXELS, PixelSpacing=[0.0002, 0.00025]))
    assert (slide.facts.tile_width, slide.facts.tile_height, slide.facts.format) == (230, 16, "DICOM")
    assert slide.facts.microns_per_pixel == pytest.approx(0.25)
    assert np.array_equal(slide.read(5, 30, 200, 110), PIXELS[30:140, 5:205])
    slide.close()


def test_planes_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_single, "_STRIP_BYTES", 3 * 230 * 16)
    path = write_single(tmp_path / "x.dcm", PIXELS, PlanarConfiguration=1)
    content = path.read_bytes()
    path.write_bytes(content.replace(PIXELS.tobytes(), PIXELS.transpose(2, 0, 1).tobytes()))
    assert np.array_equal(read(path), PIXELS)


def jpeg(**options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("syntax", "stream", "most"),
    [
        (Syntax.JPEG, jpeg(), 4),
        (Syntax.JPEG_2000_LOSSLESS, bytes(imagecodecs.jpeg2k_encode(PIXELS, codecformat="j2k", reversible=True)), 0),
        (Syntax.JPEG_LS_LOSSLESS, bytes(imagecodecs.jpegls_encode(PIXELS)), 0),
        (Syntax.RLE, encode_rle(PIXELS), 0),
    ],
    ids=["JPEG", "JPEG 2000", "JPEG-LS", "RLE"],
)
def test_packed_pixels_come_back_from_their_pieces(tmp_path: Path, syntax: Syntax, stream: bytes, most: float) -> None:
    path = write_single(tmp_path / "x.dcm", PIXELS, syntax=syntax, stream=stream)
    assert np.abs(read(path).astype(int) - PIXELS).mean() <= most


def test_ycbcr_without_a_stream_goes_by_its_label(tmp_path: Path) -> None:
    ycbcr = np.ascontiguousarray(cv2.cvtColor(PIXELS, cv2.COLOR_RGB2YCrCb)[..., (0, 2, 1)])
    assert np.abs(read(write_single(tmp_path / "x.dcm", ycbcr, PhotometricInterpretation="YBR_FULL")).astype(int) - PIXELS).mean() < 2


@pytest.mark.parametrize(
    ("facts", "reason", "words"),
    [
        ({"NumberOfFrames": 2}, "SLIDE_UNSUPPORTED", "2 images"),
        ({"PhotometricInterpretation": "MONOCHROME2", "SamplesPerPixel": 1}, "SLIDE_NOT_RGB", "MONOCHROME2"),
        ({"BitsAllocated": 16, "BitsStored": 16}, "SLIDE_NOT_RGB", "16 bit"),
        ({"Rows": 400}, "SLIDE_DAMAGED", "fewer bytes"),
        ({"Rows": 0}, "SLIDE_DAMAGED", "no pixels"),
    ],
    ids=str,
)
def test_what_is_not_read_is_called_what_it_is(tmp_path: Path, facts: dict[str, Any], reason: str, words: str) -> None:
    error = refused(write_single(tmp_path / "x.dcm", PIXELS, **facts))
    assert error.reason == reason
    assert words in error.message


def test_what_is_cut_off_or_lies_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_single(tmp_path / "x.dcm", PIXELS)
    path.write_bytes(path.read_bytes()[:-100])
    assert refused(path).reason == "SLIDE_DAMAGED"
    path = write_single(tmp_path / "x.dcm", PIXELS, syntax=Syntax.JPEG, stream=jpeg())
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    assert "end early" in refused(path).message
    path = write_single(tmp_path / "x.dcm", PIXELS[:100], syntax=Syntax.JPEG, stream=jpeg())
    assert "calls itself" in refused(path).message
    monkeypatch.setattr(dicom_single, "MAX_FRAGMENTS", 2)
    path.write_bytes(whole)
    assert "more pieces" in refused(path).message
    monkeypatch.setattr(dicom_single, "MAX_FRAGMENTS", 9)
    monkeypatch.setattr(dicom_single, "STORED_MARGIN", -(10**9))
    assert "more bytes" in refused(path).message


def test_an_image_too_large_for_one_piece_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = write_single(tmp_path / "x.dcm", PIXELS, syntax=Syntax.JPEG, stream=jpeg(), Rows=9000, Columns=9000)
    assert refused(path).reason == "SLIDE_NOT_TILED"
