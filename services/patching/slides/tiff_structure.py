"""The chain of directories of a TIFF file, walked before a parser sees it: lost, endless and looping chains are refused."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO, Final

from services.patching.slides.slide import damaged

MAX_DIRECTORIES: Final = 1024
MAX_TAGS: Final = 4096
MAX_ALL_TAGS: Final = 65_536
"""Tags of all directories together; the directories of slides have about 20 each."""
MAX_NUMBERS: Final = 262_144
"""Numbers of one tag that a parser reads at once; a table of colours has 196,608."""
MAX_TEXT: Final = 16 * 1024 * 1024
MAX_ALL_TEXT: Final = 64 * 1024 * 1024
"""Bytes of one text, and of all that a parser reads at once."""
MAX_SEGMENTS: Final = 4_000_000
"""Entries of all tables of tiles and strips together: the largest slide that is read has 2 million, in tiles of 256 px with all its resolutions."""
MAX_BELOW: Final = 64
"""Directories that one directory may have below it: resolutions, in some forms of slides."""
_SEGMENT_TABLES: Final = (273, 279, 324, 325)
_SUB_DIRECTORIES: Final = 330
_OFFSET_TYPES: Final = {4: "I", 13: "I", 16: "Q", 18: "Q"}
_PRIVATE: Final = 32_768
"""From here on a parser leaves tags unread, except those of ``_READ``."""
_READ: Final = frozenset({33628, 42113, 50838, 50839})
_BYTES: Final = {1: 1, 2: 1, 6: 1, 7: 1}
_NUMBERS: Final = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_PER_SAMPLE: Final = (258, 338, 339)
"""Tags with a number for every sample of a pixel, which parsers read at once."""
MAX_SAMPLES: Final = 16
_ORDER: Final = {b"II": "<", b"MM": ">"}


def is_tiff(head: bytes) -> bool:
    """Whether a file with this beginning is a TIFF or BigTIFF."""
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def check_directories(file: BinaryIO) -> int:
    """Walk all directories, those of the main chain and those below them.

    Args:
        file: open for reading, seekable, at any position.

    Returns:
        How many the main chain has.

    Raises:
        InvalidImageError: SLIDE_DAMAGED: a directory lies outside the file, the chain loops or is endless, or tables would fill the memory.
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
    form = _Form(order + ("Q" if big else "H"), order + ("HHQ" if big else "HHI"), order + ("Q" if big else "I"))
    offset = struct.unpack(form.offset, head[8:16] if big else head[4:8])[0]
    seen: set[int] = set()
    below: list[int] = []
    segments = chain = tags = held = 0
    while offset or below:
        is_chain = bool(offset)
        at = offset or below.pop()
        if at in seen and not is_chain:
            continue
        if at in seen or len(seen) >= MAX_DIRECTORIES:
            raise damaged("its directories loop or are too many")
        seen.add(at)
        chain += is_chain
        directory = _read_directory(file, at, form, size)
        segments += directory.segments
        tags += directory.tags
        held += directory.held
        if segments > MAX_SEGMENTS:
            raise damaged("its tables name more tiles than a slide has")
        if tags > MAX_ALL_TAGS or held > MAX_ALL_TEXT:
            raise damaged("its directories hold more than those of a slide")
        below += directory.below
        offset = directory.following if is_chain else 0
    if not chain:
        raise damaged("it holds no image")
    return chain


@dataclass(frozen=True)
class _Form:
    """How numbers are stored: of entries, the head of an entry (tag, type, count), an offset."""

    entries: str
    head: str
    offset: str


@dataclass(frozen=True)
class _Directory:
    """Entries of its tables of tiles and strips, its tags, bytes of their values, directories below it, and where the next one is."""

    segments: int
    tags: int
    held: int
    below: list[int]
    following: int


def _read_directory(file: BinaryIO, at: int, form: _Form, size: int) -> _Directory:
    """One directory; numbers of entries that make no sense are refused, and no table is read."""
    tags = _number(file, at, form.entries, size)
    if not 0 < tags <= MAX_TAGS:
        raise damaged("a directory holds no sensible number of entries")
    head, inline = struct.calcsize(form.head), struct.calcsize(form.offset)
    start = at + struct.calcsize(form.entries)
    if start + tags * (head + inline) > size:
        raise damaged("a directory lies beyond the end of the file")
    file.seek(start)
    content = file.read(tags * (head + inline))
    segments, held, below = 0, 0, list[int]()
    for position in range(0, len(content), head + inline):
        tag, kind, count = struct.unpack_from(form.head, content, position)
        value = content[position + head : position + head + inline]
        if tag in _PER_SAMPLE and count > MAX_SAMPLES:
            raise damaged("it has more samples a pixel than make sense")
        if tag in _SEGMENT_TABLES:
            segments += count
        elif tag < _PRIVATE or tag in _READ:
            held += _held(kind, count)
        if tag == _SUB_DIRECTORIES:
            below += _offsets(file, kind, count, value, form, size)
    return _Directory(segments, tags, held, below, _number(file, start + tags * (head + inline), form.offset, size))


def _held(kind: int, count: int) -> int:
    """Bytes of the value of a tag that a parser reads at once."""
    if count > (MAX_NUMBERS if kind in _NUMBERS else MAX_TEXT):
        raise damaged("a tag holds more than those of a slide")
    return count * (_NUMBERS.get(kind) or _BYTES.get(kind, 1))


def _offsets(file: BinaryIO, kind: int, count: int, value: bytes, form: _Form, size: int) -> list[int]:
    letter = _OFFSET_TYPES.get(kind)
    if count > MAX_BELOW or letter is None:
        raise damaged("it has more directories below another than make sense")
    each = form.offset[0] + letter
    length = count * struct.calcsize(each)
    if length > len(value):
        at = struct.unpack(form.offset, value)[0]
        if at + length > size:
            raise damaged("a directory lies beyond the end of the file")
        file.seek(at)
        value = file.read(length)
    return [offset for (offset,) in struct.iter_unpack(each, value[:length]) if offset]


def _number(file: BinaryIO, offset: int, form: str, size: int) -> int:
    length = struct.calcsize(form)
    if offset + length > size:
        raise damaged("a directory lies beyond the end of the file")
    file.seek(offset)
    return int(struct.unpack(form, file.read(length))[0])
