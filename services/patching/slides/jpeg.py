"""What a JPEG or JPEG-LS stream says of itself, read without decoding: its size, its samples, its scans."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from services.patching.slides.slide import damaged

_WITHOUT_LENGTH: Final = frozenset({0x00, 0x01, *range(0xD0, 0xDA)})
"""Markers without a length; none of them may come before the size."""
_NO_FRAME: Final = frozenset({0xC4, 0xC8, 0xCC})
"""Markers among those of frames that begin no frame: tables and an extension."""
_JPEG_LS: Final = 0xF7
_LSE: Final = 0xF8
_LONGER_SIZE: Final = 4
"""Kind of a JPEG-LS extension that replaces the size of the frame."""
_TABLES: Final = frozenset({0xC4, 0xCC, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)})
"""Markers that tables, which tiles share, are made of: no frame and no scan."""
_SCAN: Final = b"\xff\xda"
MAX_SCANS: Final = 32
"""Scans of a tile: one, three where the colours are apart, about ten where it is progressive. Each goes over all pixels."""
MAX_TABLES: Final = 64 * 1024
"""Bytes of the tables that tiles share; they take about 600."""


@dataclass(frozen=True)
class JpegFrame:
    """The head of a frame.

    Attributes:
        width, height: px.
        samples: per pixel.
        bits: per sample.
        lossless_ls: whether it is JPEG-LS.
    """

    width: int
    height: int
    samples: int
    bits: int
    lossless_ls: bool


def jpeg_frame(data: bytes) -> JpegFrame:
    """The head of the frame of a JPEG or JPEG-LS stream.

    Raises:
        InvalidImageError: SLIDE_DAMAGED: it is no JPEG, or it ends before its size is said.
    """
    if data[:2] != b"\xff\xd8":
        raise damaged("a tile is not the JPEG that the header says")
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in _WITHOUT_LENGTH:
            raise damaged("a tile holds data before it says its size")
        if marker == _JPEG_LS or (0xC0 <= marker <= 0xCF and marker not in _NO_FRAME):
            bits, height, width = struct.unpack(">BHH", data[at + 4 : at + 9])
            return JpegFrame(width, height, data[at + 9] if at + 9 < len(data) else 0, bits, marker == _JPEG_LS)
        at += 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    raise damaged("a tile does not say its size")


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Width and height that a JPEG stream announces, px.

    Raises:
        InvalidImageError: as for ``jpeg_frame``.
    """
    frame = jpeg_frame(data)
    return frame.width, frame.height


def check_jpeg(data: bytes, width: int, height: int, samples: int, *, is_ls: bool = False) -> None:
    """Refuse a stream that a decoder would take for more than the header of the slide says.

    Args:
        data: the stream.
        width, height: px, as the header says.
        samples: per pixel.
        is_ls: whether it must be JPEG-LS; else it must not be.

    Raises:
        InvalidImageError: SLIDE_DAMAGED: it has another size, other samples, or more scans than any writer stores.
    """
    frame = jpeg_frame(data)
    if (frame.width, frame.height) != (width, height):
        raise damaged(f"a tile calls itself {frame.width} x {frame.height} px where the header says {width} x {height}")
    if frame.samples != samples or frame.lossless_ls is not is_ls:
        raise damaged("a tile stores other samples than the header says")
    if data.count(_SCAN) > MAX_SCANS:
        raise damaged("a tile is stored in more scans than any microscope writes")
    if is_ls and b"\xff\xf8\x00" in data and _replaces_its_size(data):
        raise damaged("a tile says its size twice")


def check_jpeg_tables(tables: bytes) -> None:
    """Refuse tables that hold more than tables: a decoder would take the size of a frame in them for that of every tile.

    Args:
        tables: of a TIFF; empty for none.

    Raises:
        InvalidImageError: SLIDE_DAMAGED.
    """
    if not tables:
        return
    if tables[:2] != b"\xff\xd8" or len(tables) > MAX_TABLES:
        raise damaged("its JPEG tables are none")
    at = 2
    while at + 4 <= len(tables) and tables[at] == 0xFF:
        marker = tables[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker == 0xD9:
            return
        if marker not in _TABLES:
            raise damaged("its JPEG tables hold more than tables")
        at += 2 + max(2, struct.unpack(">H", tables[at + 2 : at + 4])[0])
    if tables[at : at + 2] not in (b"\xff\xd9", b""):
        raise damaged("its JPEG tables hold more than tables")


def _replaces_its_size(data: bytes) -> bool:
    """Whether an extension between the frame and the first scan replaces the size."""
    at = 2
    while at + 5 <= len(data) and data[at] == 0xFF and data[at + 1] != _SCAN[1]:
        if data[at + 1] == _LSE and data[at + 4] == _LONGER_SIZE:
            return True
        at += 1 if data[at + 1] == 0xFF else 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    return False
