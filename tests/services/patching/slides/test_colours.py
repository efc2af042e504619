"""Colours that cannot be those of a stain are noticed; lamps and dim light are not mistaken for them."""

from __future__ import annotations

from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile

from services.common.phantom import PhantomOptions, smear_field
from services.patching.slides.colours import are_colours_doubted, colour_samples
from services.patching.slides.dicom_header import Syntax
from services.patching.slides.location import survey
from services.patching.slides.opening import open_slide
from tests.services.patching.slides.dicom_files import write_dicom

FIELDS = [smear_field(seed, PhantomOptions(width=640, height=480, cells=cells)).image.copy() for seed, cells in ((1, 8), (2, 2), (3, 12))]


def ycbcr(rgb: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb)[..., (0, 2, 1)])


def lit(rgb: np.ndarray, *light: float) -> np.ndarray:
    return np.clip(rgb * np.array(light), 0, 255).astype(np.uint8)


def doubted(rgb: np.ndarray) -> bool:
    return are_colours_doubted([colour_samples(rgb)])


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("light", [(1, 1, 1), (1, 0.9, 0.7), (0.8, 0.92, 1), (0.6, 0.6, 0.6), (0.5, 0.47, 0.4)], ids=str)
def test_a_stain_is_believed_in_any_light_and_its_misreadings_are_not(field: np.ndarray, light: tuple[float, ...]) -> None:
    seen = lit(field, *light)
    assert not doubted(seen)
    assert doubted(ycbcr(seen))


@pytest.mark.parametrize("field", FIELDS)
def test_rgb_that_was_converted_as_ycbcr_is_doubted(field: np.ndarray) -> None:
    assert doubted(cv2.cvtColor(np.ascontiguousarray(field[..., (0, 2, 1)]), cv2.COLOR_YCrCb2RGB))


@pytest.mark.parametrize("level", [255, 240, 128, 3, 0])
def test_empty_glass_is_believed(level: int) -> None:
    noisy = np.clip(level + np.random.default_rng(0).normal(0, 2, (200, 300, 3)), 0, 255).astype(np.uint8)
    assert not doubted(noisy)


def test_a_slide_tells_its_doubts(tmp_path: Path) -> None:
    def stored(tile: np.ndarray) -> bytes:
        return bytes(imagecodecs.jpeg2k_encode(ycbcr(tile), reversible=True, mct=False, codecformat="j2k"))

    path = write_dicom(tmp_path / "slide.dcm", FIELDS[0], syntax=Syntax.JPEG_2000, encode=stored)
    slide = open_slide(path)
    assert survey(slide, None).are_colours_doubted
    slide.close()
    tifffile.imwrite(tmp_path / "slide.tif", FIELDS[0], photometric="rgb", tile=(64, 64))
    slide = open_slide(tmp_path / "slide.tif")
    assert not survey(slide, None).are_colours_doubted
    slide.close()
