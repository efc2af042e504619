"""What an image file consists of, counted in its bytes before a library reads it: pieces, and scans of JPEG data.

A library spends time on every piece, however small, and a scan touches all pixels again, however few bytes it has.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from services.common.errors import InvalidImageError

MAX_PIECES: Final = 65_536
"""Chunks of a PNG, strips or tiles of a TIFF; encoders write one piece for every few kilobytes or for every row."""
MAX_SEGMENTS: Final = 8_192
"""Segments of a JPEG; colour profiles and metadata that do not fit in one take some hundreds."""
MAX_JUNK: Final = 65_536
"""Bytes between the segments of a JPEG's header that belong to none."""
START_OF_SCAN: Final = b"\xff\xda"
_MARKER: Final = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
_SCAN: Final = 0xDA
_START: Final = 0xD8
_END: Final = 0xD9
_LS_FRAME: Final = 0xF7
_NO_FRAMES: Final = (0xC4, 0xC8, 0xCC)
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_STRIP_OFFSETS, _TILE_OFFSETS = 273, 324


@dataclass(frozen=True)
class Pieces:
    """Strips or tiles of a TIFF.

    Attributes:
        ranges: where each begins in the file, and its bytes.
        pixels: of one piece, those beyond the border of the image among them.
    """

    ranges: Sequence[tuple[int, int]]
    pixels: int


def check_pieces(encoded: bytes) -> None:
    """Refuse a file of so many pieces that reading them alone would take long.

    Args:
        encoded: the bytes of a file of any kind; what is damaged passes here.

    Raises:
        InvalidImageError: IMAGE_TOO_LARGE.
    """
    if encoded.startswith(_PNG):
        count, most = _count_chunks(encoded), MAX_PIECES
    elif encoded.startswith(b"\xff\xd8"):
        count, most = _count_header_segments(encoded), MAX_SEGMENTS
    elif encoded[:2] in (b"II", b"MM"):
        count, most = _count_tiff_pieces(encoded), MAX_PIECES
    else:
        return
    if count > most:
        raise InvalidImageError("IMAGE_TOO_LARGE", f"The image is stored in more than {most} pieces, far more than any camera writes; save it again.")


def count_scans(encoded: bytes) -> int:
    """Scans of a JPEG up to its end: neither a preview in its metadata nor what follows the image is counted.

    A JPEG of ``MAX_PIECES`` segments counts as one of so many scans.
    """
    scans = 0
    for count, (code, _) in enumerate(_segments(encoded)):
        scans += code == _SCAN
        if count >= MAX_PIECES:
            return MAX_PIECES
    return scans


def components_of_first_scan(encoded: bytes) -> int:
    """Colour components in the first scan of a JPEG; 0 where it has none."""
    for code, start in _segments(encoded):
        if code == _SCAN:
            return int.from_bytes(encoded[start + 4 : start + 5], "big")
    return 0


def frame_of(encoded: bytes) -> tuple[int, int]:
    """Code of the marker of a JPEG's frame, which tells how it is coded, and bits of a sample; zeros where it has none."""
    for count, (code, start) in enumerate(_segments(encoded)):
        if code == _LS_FRAME or (code in range(0xC0, 0xD0) and code not in _NO_FRAMES):
            return code, int.from_bytes(encoded[start + 4 : start + 5], "big")
        if code == _SCAN or count > MAX_SEGMENTS:
            break
    return 0, 0


def count_scans_of_pieces(encoded: bytes, pieces: Pieces) -> int:
    """Scans of the JPEG data of all pieces, those of a shared piece as often as it is used.

    Raises:
        InvalidImageError: IMAGE_TRUNCATED: the pieces claim several times the bytes of the file.
    """
    if sum(size for _, size in pieces.ranges) > 4 * len(encoded):
        raise InvalidImageError("IMAGE_TRUNCATED", "The pieces of the image claim more bytes than the file has; it is damaged.")
    return sum(encoded.count(START_OF_SCAN, start, start + size) for start, size in pieces.ranges)


def _count_chunks(encoded: bytes) -> int:
    at, count = len(_PNG), 0
    while at + 8 <= len(encoded) and count <= MAX_PIECES:
        at += 12 + int.from_bytes(encoded[at : at + 4], "big")
        count += 1
    return count


def _count_header_segments(encoded: bytes) -> int:
    """Segments before the first scan; too many where junk is between them, which Pillow reads byte by byte."""
    end = 2
    for count, (code, start) in enumerate(_segments(encoded)):
        if start - end > MAX_JUNK:
            return MAX_SEGMENTS + 1
        if code == _SCAN or count > MAX_SEGMENTS:
            return count
        end = start + 2 + _length(encoded, start)
    return MAX_SEGMENTS + 1 if len(encoded) - end > MAX_JUNK else 0


def _segments(encoded: bytes) -> Iterator[tuple[int, int]]:
    """Markers of a JPEG with their positions, as libjpeg reads them: data of scans and contents of segments are skipped."""
    at = 2
    while (found := _MARKER.search(encoded, at)) is not None:
        code, start = encoded[found.start() + 1], found.start()
        yield code, start
        if code == _END:
            return
        at = start + 2 + (0 if code == _START else _length(encoded, start))


def _length(encoded: bytes, start: int) -> int:
    return max(2, int.from_bytes(encoded[start + 2 : start + 4], "big"))


def _count_tiff_pieces(encoded: bytes) -> int:
    """Most entries of the lists of strips and tiles in the first directory; 0 where it cannot be read."""
    order = "<" if encoded[:2] == b"II" else ">"
    try:
        (version,) = struct.unpack_from(order + "H", encoded, 2)
        count_format, entry_format, offset_format, at = ("Q", "HHQ8x", "Q", 8) if version == 43 else ("H", "HHL4x", "L", 4)
        (directory,) = struct.unpack_from(order + offset_format, encoded, at)
        (count,) = struct.unpack_from(order + count_format, encoded, directory)
        entry = struct.Struct(order + entry_format)
        first = directory + struct.calcsize(order + count_format)
        entries = list(entry.iter_unpack(encoded[first : first + min(count, MAX_PIECES) * entry.size]))
    except (struct.error, ValueError, OverflowError):
        return 0
    return max((number for tag, _, number in entries if tag in (_STRIP_OFFSETS, _TILE_OFFSETS)), default=0)
