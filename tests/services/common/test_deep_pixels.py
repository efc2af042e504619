"""Images of 16 bits a sample."""

from __future__ import annotations

import io

import imagecodecs
import numpy as np
import pytest
import tifffile

from services.common.deep_pixels import bits_in_use, read_deep, to_bytes, uses_few_bits
from services.common.errors import InvalidImageError


def _deep(largest: int, channels: int = 3) -> np.ndarray:
    deep = np.linspace(0, largest, 40 * 50 * channels).astype(np.uint16).reshape(40, 50, channels)
    if channels == 4:
        deep[..., 3] = 65_535
    return deep


@pytest.mark.parametrize(
    ("largest", "bits"), [(200, 8), (256, 10), (1023, 10), (1024, 12), (4095, 12), (4096, 14), (16_383, 14), (16_384, 16), (65_535, 16)]
)
@pytest.mark.parametrize("channels", [3, 4])
def test_bits_in_use(largest: int, bits: int, channels: int) -> None:
    deep = _deep(largest, channels)
    deep[0, 0, 0] = largest
    assert bits_in_use(deep) == bits
    assert uses_few_bits((deep[..., :3] >> 8).astype(np.uint8)) == (bits < 16)


def test_what_the_file_states_counts_where_no_sample_exceeds_it() -> None:
    assert bits_in_use(_deep(900), 4095) == 12
    assert bits_in_use(_deep(5000), 4095) == 14
    assert bits_in_use(_deep(4000), 65_535) == 12


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_the_upper_bits_in_use_are_kept(bits: int) -> None:
    deep = _deep((1 << bits) - 1)
    pixels, is_transparent = to_bytes(deep, bits, has_alpha=False)
    np.testing.assert_array_equal(pixels, (deep >> (bits - 8)).astype(np.uint8))
    assert not is_transparent


def test_transparency_is_seen() -> None:
    deep = _deep(65_535, 4)
    assert not to_bytes(deep, 16, has_alpha=True)[1]
    deep[-1, -1, 3] = 65_534
    assert to_bytes(deep, 16, has_alpha=True)[1]
    assert not to_bytes(deep, 16, has_alpha=False)[1]
    deep[..., 3] = 4095
    assert not to_bytes(deep, 12, has_alpha=True)[1]


@pytest.mark.parametrize("planarconfig", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_tiffs_are_read_in_all_their_bits(planarconfig: str, compression: str | None, byteorder: str) -> None:
    deep = _deep(60_000)
    stored = np.ascontiguousarray(np.moveaxis(deep, -1, 0)) if planarconfig == "separate" else deep
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, stored, photometric="rgb", planarconfig=planarconfig, compression=compression, byteorder=byteorder)  # type: ignore[arg-type]
    np.testing.assert_array_equal(read_deep(buffer.getvalue(), "TIFF"), deep)


def test_a_png_is_read_in_all_its_bits() -> None:
    np.testing.assert_array_equal(read_deep(bytes(imagecodecs.png_encode(_deep(60_000))), "PNG"), _deep(60_000))


def test_what_is_damaged_or_not_rgb_is_refused() -> None:
    encoded = bytes(imagecodecs.png_encode(_deep(60_000)))
    with pytest.raises(InvalidImageError):
        read_deep(encoded[: len(encoded) // 2], "PNG")
    with pytest.raises(InvalidImageError) as caught:
        read_deep(bytes(imagecodecs.png_encode(_deep(60_000)[..., 0].copy())), "PNG")
    assert caught.value.reason == "IMAGE_UNSUPPORTED_MODE"
