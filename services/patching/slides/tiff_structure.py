"""The chain of directories of a TIFF file, walked before a parser sees it: lost, endless and looping chains are refused."""

from __future__ import annotations

import struct
from typing import BinaryIO, Final

from services.patching.slides.slide import damaged

MAX_DIRECTORIES: Final = 256
MAX_TAGS: Final = 4096
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
    while offset:
        if offset in seen or len(seen) >= MAX_DIRECTORIES:
            raise damaged("its directories loop or are too many")
        seen.add(offset)
        tags = _number(file, offset, order + count_form, size)
        if not 0 < tags <= MAX_TAGS:
            raise damaged("a directory holds no sensible number of entries")
        offset = _number(file, offset + struct.calcsize(order + count_form) + tags * entry, order + offset_form, size)
    if not seen:
        raise damaged("it holds no image")
    return len(seen)


def _number(file: BinaryIO, offset: int, form: str, size: int) -> int:
    length = struct.calcsize(form)
    if offset + length > size:
        raise damaged("a directory lies beyond the end of the file")
    file.seek(offset)
    return int(struct.unpack(form, file.read(length))[0])
