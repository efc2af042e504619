"""Tests of the memory of an image on its whole way."""

from __future__ import annotations

import dataclasses
import io
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from services.common.image_codec import MAX_ASPECT, decode_image, read_header
from services.common.image_header import ImageHeader, decode_bytes
from services.patching.cells import WORKING_SIDE, locate_cells, working_pixels
from services.patching.image_memory import location_bytes, patches_bytes
from services.patching.settings import PatchingSettings

LARGEST = ImageHeader(10_000, 10_000, "JPEG", "RGB", 8, 1, 600_000_000)


def test_the_largest_image_fits_into_the_memory_of_a_service() -> None:
    assert decode_bytes(LARGEST) < location_bytes(LARGEST) < PatchingSettings().image_memory_bytes


def test_small_images_are_admitted_together() -> None:
    field = ImageHeader(1280, 960, "PNG", "RGB", 8, 1, 0)
    assert location_bytes(field) * 8 < PatchingSettings().image_memory_bytes


@pytest.mark.parametrize("width", [32, 63, 64, 100, 500, 1023, 1025, 6000, 10_000])
@pytest.mark.parametrize("aspect", [1.0, 2.0, 10.0, 40.0, float(MAX_ASPECT)])
def test_the_working_copy_is_bounded_whatever_the_aspect(width: int, aspect: float) -> None:
    assert working_pixels(width, int(width * aspect)) == working_pixels(int(width * aspect), width) <= WORKING_SIDE**2


def test_a_patch_is_copied_twice() -> None:
    small = dataclasses.replace(LARGEST, buffered=0)
    assert patches_bytes(small, 256) == location_bytes(small)
    assert patches_bytes(small, 16_384) >= 300_000_000 + 700_000_000


@pytest.mark.parametrize(("height", "width"), [(900, 1200), (64, 9000), (1500, 1500)])
def test_arrays_take_less_than_predicted(height: int, width: int) -> None:
    rows, columns = np.mgrid[0:height, 0:width]
    rgb = np.full((height, width, 3), (190, 140, 150), np.uint8)
    rgb[(rows + columns) % 16 < 8] = (90, 50, 140)
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "PNG")
    encoded = buffer.getvalue()
    tracemalloc.start()
    try:
        locate_cells(decode_image(encoded).pixels, masks=False)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < location_bytes(read_header(encoded))
