"""Pixels of 16 bits a sample: which of the bits are in use, and the image in 8 bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from services.common.errors import InvalidImageError

Bytes = NDArray[np.uint8]
Words = NDArray[np.uint16]

MAX_DEEP_PIXELS: Final = 40_000_000
"""Pixels of an image that is read in all its 16 bits; others are read by their upper bytes, in less memory."""
DEEP_BYTES: Final = 8
"""Bytes of a pixel that is read in all its bits, alpha included."""
FULL: Final = 16
USUAL_BITS: Final = (8, 10, 12, 14)
"""Bits of a sample that cameras deliver in words of 16."""
_FEWEST_UPPER: Final = 1 << (USUAL_BITS[-1] - 8)
_OPAQUE: Final = 65_535


def uses_few_bits(upper: Bytes) -> bool:
    """Whether the upper bytes of all samples are so low that at most 14 bits are in use."""
    return int(upper.max(initial=0)) < _FEWEST_UPPER


def read_deep(encoded: bytes, form: str) -> Words:
    """Decode an image of 16 bits a sample.

    Args:
        encoded: the file.
        form: PNG or TIFF.

    Returns:
        uint16 (H, W, 3 or 4).

    Raises:
        InvalidImageError: IMAGE_TOO_LARGE, IMAGE_TRUNCATED or IMAGE_UNSUPPORTED_MODE.
    """
    try:
        decoded = imagecodecs.png_decode(encoded) if form == "PNG" else imagecodecs.tiff_decode(encoded)
    except (imagecodecs.PngError, imagecodecs.TiffError, ValueError, RuntimeError, NotImplementedError) as error:
        raise InvalidImageError("IMAGE_TRUNCATED", "The image ends early or is damaged; it could not be decoded whole.") from error
    if decoded.ndim == 3 and decoded.shape[0] in (3, 4) and decoded.shape[2] not in (3, 4):
        decoded = np.moveaxis(decoded, 0, -1)
    if decoded.dtype != np.uint16 or decoded.ndim != 3 or decoded.shape[2] not in (3, 4):
        raise InvalidImageError("IMAGE_UNSUPPORTED_MODE", "The image has 16 bits a sample, but not as RGB; save it in RGB of 8 or 16 bit.")
    return decoded


def bits_in_use(deep: Words, stated: int = 0) -> int:
    """Bits of a sample that are in use: 8, 10, 12, 14 or 16.

    Args:
        deep: uint16 (H, W, 3 or 4); alpha does not count.
        stated: largest value in use as the file says; 0 where it does not. It counts where no sample exceeds it; 65,535, the default, says nothing.
    """
    largest = max(int(strip[..., :3].max()) for strip in _strips(deep))
    if largest <= stated < _OPAQUE:
        largest = stated
    return next((bits for bits in USUAL_BITS if largest < 1 << bits), FULL)


def to_bytes(deep: Words, bits: int, *, has_alpha: bool) -> tuple[Bytes, bool]:
    """The image in 8 bit, a fourth channel dropped.

    Args:
        deep: uint16 (H, W, 3 or 4).
        bits: that are in use.
        has_alpha: whether a fourth channel is alpha, which is opaque from the largest value of the bits in use on.

    Returns:
        uint8 (H, W, 3): the upper 8 of the bits in use; and whether a pixel is not opaque.
    """
    pixels = np.empty((*deep.shape[:2], 3), np.uint8)
    is_transparent, row = False, 0
    for strip in _strips(deep):
        pixels[row : row + len(strip)] = strip[..., :3] >> (bits - 8)
        is_transparent = is_transparent or (has_alpha and deep.shape[2] == 4 and int(strip[..., 3].min()) < (1 << bits) - 1)
        row += len(strip)
    return pixels, is_transparent


def _strips(deep: Words) -> Iterator[Words]:
    rows = max(1, (1 << 18) // deep.shape[1])
    for top in range(0, len(deep), rows):
        yield deep[top : top + rows]
