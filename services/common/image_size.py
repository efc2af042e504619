"""The size of an image, from a few bytes of its file: for a first estimate of the work. ``image_codec.read_header`` checks it later."""

from __future__ import annotations

import struct
from typing import Final

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_JPEG: Final = b"\xff\xd8"
_BMP: Final = b"BM"
_TIFF: Final = (b"II*\0", b"MM\0*")
_FRAMES: Final = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_NO_LENGTH: Final = frozenset({0x01, *range(0xD0, 0xD9)})
_MOST_SEGMENTS: Final = 1024
_MOST_ENTRIES: Final = 512
_WIDTH, _LENGTH, _SHORT = 256, 257, 3


def stored_pixels(encoded: bytes) -> int:
    """Pixels of a PNG, JPEG, BMP or TIFF as its header says; 0 where it cannot be read so easily. Nothing is decoded, and it takes some microseconds.

    Args:
        encoded: the bytes of a file of any kind.
    """
    try:
        return max(0, _pixels(encoded))
    except (struct.error, IndexError):
        return 0


def _pixels(encoded: bytes) -> int:
    if encoded.startswith(_PNG):
        width, height = struct.unpack_from(">II", encoded, 16)
    elif encoded.startswith(_JPEG):
        width, height = _jpeg(encoded)
    elif encoded[:4] in _TIFF:
        width, height = _tiff(encoded)
    elif encoded.startswith(_BMP):
        width, height = (abs(side) for side in struct.unpack_from("<ii", encoded, 18))
    else:
        return 0
    return int(width) * int(height)


def _jpeg(encoded: bytes) -> tuple[int, int]:
    """Of the first frame; (0, 0) where the segments before it do not follow each other."""
    at = len(_JPEG)
    for _ in range(_MOST_SEGMENTS):
        while encoded[at] == 0xFF and encoded[at + 1] == 0xFF:
            at += 1
            if at > 1 << 16:
                return 0, 0
        if encoded[at] != 0xFF:
            return 0, 0
        code = encoded[at + 1]
        if code in _FRAMES:
            height, width = struct.unpack_from(">HH", encoded, at + 5)
            return width, height
        at += 2 if code in _NO_LENGTH else 2 + struct.unpack_from(">H", encoded, at + 2)[0]
    return 0, 0


def _tiff(encoded: bytes) -> tuple[int, int]:
    """Of the first directory of a TIFF that is no BigTIFF."""
    order = "<" if encoded.startswith(b"II") else ">"
    (directory,) = struct.unpack_from(order + "I", encoded, 4)
    (count,) = struct.unpack_from(order + "H", encoded, directory)
    sides = {_WIDTH: 0, _LENGTH: 0}
    for entry in range(min(count, _MOST_ENTRIES)):
        at = directory + 2 + 12 * entry
        tag, kind = struct.unpack_from(order + "HH", encoded, at)
        if tag in sides:
            (sides[tag],) = struct.unpack_from(order + ("H" if kind == _SHORT else "I"), encoded, at + 8)
    return sides[_WIDTH], sides[_LENGTH]
