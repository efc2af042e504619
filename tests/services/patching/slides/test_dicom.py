"""Slides in DICOM: files of an independent writer, whole and damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from services.common.errors import InvalidImageError
from services.patching.slides.opening import open_slide
from tests.services.patching.slides.dicom_files import write_dicom

PIXELS = np.asarray(Image.fromarray(np.random.default_rng(0).integers(0, 256, (15, 23, 3), np.uint8)).resize((230, 150), Image.Resampling.BICUBIC))


def test_windows_size_and_scale(tmp_path: Path) -> None:
    slide = open_slide(write_dicom(tmp_path / "slide.dcm", PIXELS))
    assert (slide.facts.width, slide.facts.height, slide.facts.format) == (230, 150, "DICOM")
    assert slide.facts.microns_per_pixel == pytest.approx(0.25)
    difference = np.abs(slide.read(10, 20, 200, 120).astype(int) - PIXELS[20:140, 10:210])
    assert difference.mean() < 4
    slide.close()


def test_a_folder_is_one_slide(tmp_path: Path) -> None:
    write_dicom(tmp_path / "slide.dcm", PIXELS)
    (tmp_path / "readme.txt").write_text("not DICOM")
    slide = open_slide(tmp_path)
    assert slide.facts.width == 230
    slide.close()


@pytest.mark.parametrize("side", [32, 100, 3000])
def test_a_tile_that_lies_about_its_size_is_refused(tmp_path: Path, side: int) -> None:
    slide = open_slide(write_dicom(tmp_path / "slide.dcm", PIXELS, lying_side=side))
    with pytest.raises(InvalidImageError) as caught:
        slide.read(0, 0, 230, 150)
    assert caught.value.reason == "SLIDE_DAMAGED"
    slide.close()


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, share: float) -> None:
    path = write_dicom(tmp_path / "slide.dcm", PIXELS)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(InvalidImageError) as caught:
        open_slide(path).read(0, 0, 230, 150)
    assert caught.value.reason == "SLIDE_DAMAGED"


def test_dicom_that_is_no_slide_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.dcm"
    path.write_bytes(bytes(128) + b"DICM" + bytes(400))
    with pytest.raises(InvalidImageError) as caught:
        open_slide(path)
    assert caught.value.reason == "SLIDE_DAMAGED"
