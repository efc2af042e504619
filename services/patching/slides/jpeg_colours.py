"""Whether a JPEG stream stores RGB or YCbCr. Streams say it themselves; the labels of files are wrong where a writer did not look."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from services.patching.slides.ycbcr import rgb_of_ycbcr

_JFIF: Final = 0xE0
_ADOBE: Final = 0xEE
_SCAN: Final = 0xDA
_END: Final = 0xD9
_LOSSLESS: Final = frozenset({0xC3, 0xC7, 0xCB, 0xCF})
_NO_FRAME: Final = frozenset({0xC4, 0xC8, 0xCC})
_RGB: Final = (tuple(b"RGB"), tuple(b"rgb"))
_COUNTED: Final = (1, 2, 3)
"""Numbers of the samples in JFIF: Y, Cb, Cr."""


@dataclass(frozen=True)
class JpegColours:
    """What a stream says of its three samples.

    Attributes:
        has_jfif: whether it carries the marker of JFIF, whose colours are YCbCr.
        adobe: transform in the marker of Adobe: 0 for none, 1 for YCbCr; None without the marker.
        ids: names of the samples.
        is_subsampled: whether samples are stored at different sizes, as only YCbCr is.
        is_lossless: whether it is lossless JPEG, whose samples no decoder converts.
    """

    has_jfif: bool
    adobe: int | None
    ids: tuple[int, ...]
    is_subsampled: bool
    is_lossless: bool

    def are_ycbcr(self, labelled: bool, *, trust_numbers: bool) -> bool:
        """Whether the samples are YCbCr.

        Args:
            labelled: whether the file labels them so; it counts where the stream says nothing or contradicts itself.
            trust_numbers: whether samples numbered 1, 2, 3, without any marker, are YCbCr; else they say nothing.
        """
        if self.is_subsampled:
            return True
        says = {self.adobe != 0} if self.adobe is not None else set[bool]()
        if self.ids in _RGB:
            says.add(False)
        if self.has_jfif and not self.is_lossless:
            says.add(True)
        if not says and trust_numbers and self.ids == _COUNTED and not self.is_lossless:
            return True
        return says.pop() if len(says) == 1 else labelled


def jpeg_colours(data: bytes, tables: bytes = b"") -> JpegColours:
    """Read what a stream says of its colours.

    Args:
        data: a stream that ``check_jpeg`` has accepted.
        tables: that it shares with others, which may carry markers too.
    """
    has_jfif, adobe, ids = False, None, tuple[int, ...]()
    is_subsampled = is_lossless = False
    for marker, body in (*_segments(tables), *_segments(data)):
        if marker == _JFIF and body.startswith(b"JFIF\0"):
            has_jfif = True
        elif marker == _ADOBE and body.startswith(b"Adobe") and len(body) >= 12:
            adobe = body[11]
        elif 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME and len(body) >= 6:
            parts = [body[at : at + 3] for at in range(6, 6 + 3 * body[5], 3)]
            ids = tuple(part[0] for part in parts if part)
            is_subsampled = len({part[1:2] for part in parts}) > 1
            is_lossless = marker in _LOSSLESS
    return JpegColours(has_jfif, adobe, ids, is_subsampled, is_lossless)


def decode_jpeg(data: bytes, labelled: bool, *, tables: bytes = b"", trust_numbers: bool = True) -> NDArray[Any]:
    """Decode a stream of three samples a pixel to RGB.

    Args:
        data: a stream that ``check_jpeg`` has accepted.
        labelled: whether the file labels its colours YCbCr.
        tables: that it shares with others.
        trust_numbers: see ``JpegColours.are_ycbcr``.
    """
    colours = jpeg_colours(data, tables)
    are_ycbcr = colours.are_ycbcr(labelled, trust_numbers=trust_numbers)
    stored = "YCBCR" if are_ycbcr and not colours.is_lossless else "RGB"
    pixels = np.asarray(imagecodecs.jpeg8_decode(data, tables=tables or None, colorspace=stored, outcolorspace="RGB"))
    return rgb_of_ycbcr(pixels) if are_ycbcr and colours.is_lossless else pixels


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Markers before the first scan, with what they hold."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] not in (_SCAN, _END):
        if data[at + 1] == 0xFF:
            at += 1
            continue
        length = max(2, struct.unpack(">H", data[at + 2 : at + 4])[0])
        yield data[at + 1], data[at + 4 : at + 2 + length]
        at += 2 + length
