"""The chain of directories of a TIFF file, walked before a parser sees it: lost, endless and looping chains are refused."""

from __future__ import annotations

import struct
from typing import BinaryIO, Final

from services.patching.slides.slide import damaged

MAX_DIRECTORIES: Final = 256
MAX_TAGS: Final = 4096
MAX_SEGMENTS: Final = 4_000_000
"""Entries of all tables of tiles and strips together: the largest slide that is read has 2 million, in tiles of 256 px with all its resolutions."""
MAX_BELOW: Final = 64
"""Directories that one directory may have below it: resolutions, in some forms of slides."""
_SEGMENT_TABLES: Final = (273, 279, 324, 325)
_SUB_DIRECTORIES: Final = 330
_ORDER: Final = {b"II": "<", b"MM": ">"}


def is_tiff(head: bytes) -> bool:
    """Whether a file that begins so is a TIFF or BigTIFF."""
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def check_directories(file: BinaryIO) -> int:
    """Walk all directories of the main chain.

    Args:
        file: open for reading, seekable, at any position.

    Returns:
        How many there are.

    Raises:
        InvalidImageError: SLIDE_DAMAGED: a directory lies outside the file, the chain loops or is endless.
    """
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(16)
    order = _ORDER.get(head[:2])
    if order is None or not is_tiff(head) or len(head) < 8:
        raise damaged("it does not begin as a TIFF")
    big = struct.unpack(order + "H", head[2:4])[0] == 43
    if big and len(head) < 16:
        raise damaged("its header is incomplete")
    count_form, entry, offset_form = ("Q", 20, "Q") if big else ("H", 12, "I")
    offset = struct.unpack(order + offset_form, head[8:16] if big else head[4:8])[0]
    seen: set[int] = set()
    segments = 0
    while offset:
        if offset in seen or len(seen) >= MAX_DIRECTORIES:
            raise damaged("its directories loop or are too many")
        seen.add(offset)
        tags = _number(file, offset, order + count_form, size)
        if not 0 < tags <= MAX_TAGS:
            raise damaged("a directory holds no sensible number of entries")
        segments += _check_counts(file, offset + struct.calcsize(order + count_form), tags, order, entry, size)
        if segments > MAX_SEGMENTS:
            raise damaged("its tables name more tiles than a slide has")
        offset = _number(file, offset + struct.calcsize(order + count_form) + tags * entry, order + offset_form, size)
    if not seen:
        raise damaged("it holds no image")
    return len(seen)


def _check_counts(file: BinaryIO, at: int, tags: int, order: str, entry: int, size: int) -> int:
    """Entries of the tables of tiles and strips of one directory; the number of directories below it is refused where it makes no sense."""
    form = order + ("HHQ" if entry == 20 else "HHI")
    if at + tags * entry > size:
        raise damaged("a directory lies beyond the end of the file")
    file.seek(at)
    content = file.read(tags * entry)
    segments = 0
    for start in range(0, len(content), entry):
        tag, _, count = struct.unpack_from(form, content, start)
        if tag == _SUB_DIRECTORIES and count > MAX_BELOW:
            raise damaged("it has more directories below another than make sense")
        if tag in _SEGMENT_TABLES:
            segments += count
    return segments


def _number(file: BinaryIO, offset: int, form: str, size: int) -> int:
    length = struct.calcsize(form)
    if offset + length > size:
        raise damaged("a directory lies beyond the end of the file")
    file.seek(offset)
    return int(struct.unpack(form, file.read(length))[0])
