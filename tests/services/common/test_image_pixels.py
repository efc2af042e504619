"""Tests of the pixels of opened images: turned as Pillow turns them, and without alpha."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from services.common import image_pixels
from services.common.errors import InvalidImageError
from services.common.image_pixels import MAX_PADDED_PIXELS, buffered_bytes, upright_pixels

ORIENTATION = 0x0112


def _opened(picture: Image.Image, form: str, **options: Any) -> tuple[Image.Image, bytes]:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return Image.open(io.BytesIO(buffer.getvalue())), buffer.getvalue()


def _noise(channels: int = 3) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (70, 45, channels), np.uint8)


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("form", ["PNG", "TIFF", "JPEG"])
def test_images_are_turned_as_pillow_turns_them(orientation: int, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_pixels, "_STRIP_PIXELS", 45 * 16)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image, encoded = _opened(Image.fromarray(_noise()), form, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))))
    pixels, is_transparent = upright_pixels(image)
    np.testing.assert_array_equal(pixels, expected)
    assert not is_transparent


@pytest.mark.parametrize(("alpha", "expected"), [(255, False), (254, True)])
@pytest.mark.parametrize("row", [0, 69])
def test_alpha_is_dropped_and_transparency_is_seen_in_every_strip(alpha: int, expected: bool, row: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_pixels, "_STRIP_PIXELS", 45 * 16)
    picture = _noise(4)
    picture[..., 3] = 255
    picture[row, 10, 3] = alpha
    pixels, is_transparent = upright_pixels(_opened(Image.fromarray(picture), "PNG")[0])
    np.testing.assert_array_equal(pixels, picture[..., :3])
    assert is_transparent is expected


def test_large_images_are_copied_as_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = upright_pixels(_opened(Image.fromarray(_noise()), "PNG")[0])
    monkeypatch.setattr(image_pixels, "_SMALL", 0)
    monkeypatch.setattr(image_pixels, "_STRIP_PIXELS", 45 * 7)
    in_strips, _ = upright_pixels(_opened(Image.fromarray(_noise()), "PNG")[0])
    np.testing.assert_array_equal(whole, in_strips)
    assert in_strips.flags.c_contiguous


def test_only_decoders_that_buffer_count() -> None:
    picture = Image.fromarray(_noise())
    assert buffered_bytes(*_opened(picture, "PNG")) == 0
    assert buffered_bytes(*_opened(picture, "BMP")) == 0
    assert buffered_bytes(*_opened(picture, "JPEG")) == 0
    assert buffered_bytes(*_opened(picture, "TIFF")) == 0
    assert buffered_bytes(*_opened(picture, "JPEG", progressive=True)) >= 2 * 3 * 70 * 45
    assert buffered_bytes(*_opened(picture, "TIFF", compression="tiff_lzw")) >= 3 * 70 * 45
    assert buffered_bytes(*_opened(picture, "TIFF", compression="jpeg")) >= (3 + 2 * 3) * 70 * 45


def test_a_jpeg_whose_only_scan_is_not_the_whole_image_is_buffered() -> None:
    _, encoded = _opened(Image.fromarray(_noise()), "JPEG", progressive=True)
    first = encoded[: encoded.index(b"\xff\xc4", encoded.index(b"\xff\xda"))] + b"\xff\xd9"
    assert first.count(b"\xff\xda") == 1
    assert buffered_bytes(Image.open(io.BytesIO(first)), first) >= 2 * 3 * 70 * 45
    _, baseline = _opened(Image.fromarray(_noise()), "JPEG")
    scan = baseline.index(b"\xff\xda")
    luminance = baseline[:scan] + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + baseline[scan + 14 :]
    assert buffered_bytes(Image.open(io.BytesIO(luminance)), luminance) >= 2 * 3 * 70 * 45


def test_a_small_tiff_of_huge_tiles_is_refused() -> None:
    image, encoded = _opened(Image.fromarray(_noise()), "TIFF", compression="tiff_lzw")
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    tags[324], tags[325] = (8,), (8,)
    tags[322] = tags[323] = 1024
    assert buffered_bytes(image, encoded) > 1024 * 1024
    tags[322] = tags[323] = int(MAX_PADDED_PIXELS**0.5) + 1
    with pytest.raises(InvalidImageError) as caught:
        buffered_bytes(image, encoded)
    assert caught.value.reason == "IMAGE_TOO_LARGE"


@pytest.mark.parametrize("small", [0, 1 << 22])
def test_pillows_copy_is_freed(small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_pixels, "_SMALL", small)
    image, _ = _opened(Image.fromarray(_noise()), "PNG")
    upright_pixels(image)
    with pytest.raises(ValueError, match="closed"):
        image.getpixel((0, 0))
