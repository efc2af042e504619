"""Pixels that are not read are told before any is decoded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.common.errors import InvalidImageError
from services.patching.slides.dicom_frames import as_rgb, check_pixels, decode_frame
from services.patching.slides.dicom_header import DicomHeader, Syntax
from services.patching.slides.dicom_structure import check_dicom
from services.patching.slides.ycbcr import rgb_of_ycbcr
from tests.services.patching.slides.dicom_files import write_single

PIXELS = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


def header(tmp_path: Path, pixels: np.ndarray = PIXELS, **facts: Any) -> DicomHeader:
    with write_single(tmp_path / "x.dcm", pixels, **facts).open("rb") as file:
        return check_dicom(file)


def test_colours_at_reduced_size_without_jpeg_are_refused(tmp_path: Path) -> None:
    check_pixels(header(tmp_path, PhotometricInterpretation="YBR_FULL_422"))
    for label, pixels in (("YBR_FULL_422", PIXELS[..., :2]), ("YBR_PARTIAL_422", PIXELS)):
        with pytest.raises(InvalidImageError) as caught:
            check_pixels(header(tmp_path, pixels, PhotometricInterpretation=label))
        assert caught.value.reason == "SLIDE_UNSUPPORTED"
        assert label in caught.value.message


def test_labels_of_unpacked_colours() -> None:
    for label in ("YBR_FULL", "YBR_FULL_422"):
        assert np.array_equal(as_rgb(PIXELS, label), rgb_of_ycbcr(PIXELS))
    for label in ("RGB", "YBR_ICT", "YBR_RCT"):
        assert np.array_equal(as_rgb(PIXELS, label), PIXELS), "what unpacked it has undone the transform too"


@pytest.mark.parametrize("syntax", Syntax)
def test_a_frame_of_more_bytes_than_its_pixels_take_is_never_decoded(syntax: Syntax) -> None:
    with pytest.raises(InvalidImageError, match="more bytes") as caught:
        decode_frame(bytes(2 * 1024 * 1024), 64, 48, syntax, "RGB")
    assert caught.value.reason == "SLIDE_DAMAGED"
