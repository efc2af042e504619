"""The elements of a DICOM file before its pixels, walked before a parser sees them: transfer syntax, sizes, counts and depth."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum
from typing import BinaryIO, Final

from services.common.errors import InvalidImageError
from services.patching.slides.slide import MAX_PIXELS, MAX_SIDE, damaged

MAX_ELEMENTS: Final = 20_000
"""Elements outside the frames' own groups; slides have a few hundred."""
MAX_DEPTH: Final = 16
"""Sequences within each other; slides have four."""
MAX_HELD_BYTES: Final = 64 * 1024 * 1024
"""Bytes of the values outside the frames' own groups together; a colour profile takes 3 MB."""
MAX_FRAMES: Final = 2_000_000
"""Frames of a file, and tiles of all its planes: those of the largest slide in tiles of 256 px, with its resolutions."""
_START: Final = 132
_META, _SYNTAX = 0x0002, 0x00020010
_FRAMES, _ROWS, _COLUMNS = 0x00280008, 0x00280010, 0x00280011
_TOTAL_COLUMNS, _TOTAL_ROWS, _PATHS, _PLANES = 0x00480006, 0x00480007, 0x00480302, 0x00480303
_NUMBERS: Final = frozenset({_ROWS, _COLUMNS, _TOTAL_COLUMNS, _TOTAL_ROWS, _PATHS, _PLANES})
_FRAME_GROUPS: Final = 0x52009230
_EXTENDED_OFFSETS: Final = frozenset({0x7FE00001, 0x7FE00002})
_PIXELS: Final = 0x7FE00010
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED: Final = 0xFFFFFFFF
_LONG: Final = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})


class Syntax(StrEnum):
    """Transfer syntaxes that are read."""

    IMPLICIT = "1.2.840.10008.1.2"
    EXPLICIT = "1.2.840.10008.1.2.1"
    JPEG = "1.2.840.10008.1.2.4.50"
    JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
    JPEG_LOSSLESS = "1.2.840.10008.1.2.4.57"
    JPEG_LOSSLESS_FIRST = "1.2.840.10008.1.2.4.70"
    JPEG_LS_LOSSLESS = "1.2.840.10008.1.2.4.80"
    JPEG_LS = "1.2.840.10008.1.2.4.81"
    JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
    JPEG_2000 = "1.2.840.10008.1.2.4.91"
    HTJ2K_LOSSLESS = "1.2.840.10008.1.2.4.201"
    HTJ2K_LOSSLESS_RPCL = "1.2.840.10008.1.2.4.202"
    HTJ2K = "1.2.840.10008.1.2.4.203"
    RLE = "1.2.840.10008.1.2.5"

    @property
    def is_jpeg(self) -> bool:
        """Whether its frames are JPEG streams."""
        return self in (Syntax.JPEG, Syntax.JPEG_EXTENDED, Syntax.JPEG_LOSSLESS, Syntax.JPEG_LOSSLESS_FIRST)

    @property
    def is_jpeg_ls(self) -> bool:
        """Whether its frames are JPEG-LS streams."""
        return self in (Syntax.JPEG_LS, Syntax.JPEG_LS_LOSSLESS)

    @property
    def is_native(self) -> bool:
        """Whether its frames are not packed."""
        return self in (Syntax.IMPLICIT, Syntax.EXPLICIT)


@dataclass
class _Walk:
    """A file, how its elements are stored, and what was seen of them."""

    file: BinaryIO
    size: int
    explicit: bool = True
    elements: int = 0
    held: int = 0


@dataclass(frozen=True)
class _Element:
    """Tag, kind of its value (empty where the file does not say it), length of its value, and where that begins."""

    tag: int
    kind: bytes
    length: int
    at: int

    @property
    def is_sequence(self) -> bool:
        return self.kind == b"SQ" or self.length == _UNDEFINED


def check_dicom(file: BinaryIO) -> Syntax:
    """Walk the elements up to the pixels. The groups of the single frames are stepped over where their length is given.

    Args:
        file: open for reading, seekable, at any position.

    Returns:
        The transfer syntax.

    Raises:
        InvalidImageError: SLIDE_UNSUPPORTED: another transfer syntax; SLIDE_TOO_LARGE: more pixels than are read; SLIDE_DAMAGED: an element lies
            outside the file, or there are more elements, frames or levels of sequences than a slide has.
    """
    walk = _Walk(file, file.seek(0, 2))
    position, syntax = _meta(walk)
    walk.explicit = syntax is not Syntax.IMPLICIT
    numbers: dict[int, int] = {}
    while position < walk.size:
        element = _element(walk, position)
        if element.tag == _PIXELS:
            break
        if element.tag in _NUMBERS and element.length in (2, 4):
            numbers[element.tag] = int.from_bytes(_value(walk, element), "little")
        elif element.tag == _FRAMES and element.length <= 12:
            text = _value(walk, element).strip(b" \0")
            numbers[_FRAMES] = int(text) if text.isdigit() else 0
        position = _after(walk, element, 0)
    _check_numbers(numbers, walk.size, syntax)
    return syntax


def _meta(walk: _Walk) -> tuple[int, Syntax]:
    """The group before the data set: where it ends, and the transfer syntax in it."""
    position, named = _START, ""
    while position < walk.size:
        element = _element(walk, position)
        if element.tag >> 16 != _META:
            break
        if element.tag == _SYNTAX and element.length <= 64:
            named = _value(walk, element).strip(b" \0").decode("ascii", "replace")
        if element.is_sequence:
            raise damaged("its head holds a sequence")
        position = _after(walk, element, 0)
    if not named:
        raise damaged("it does not say how its pixels are stored")
    try:
        return position, Syntax(named)
    except ValueError as error:
        message = "The slide's transfer syntax is not read; use JPEG, JPEG-LS, JPEG 2000, RLE or uncompressed little endian."
        raise InvalidImageError("SLIDE_UNSUPPORTED", message) from error


def _element(walk: _Walk, position: int) -> _Element:
    """The head of an element; counts it."""
    walk.elements += 1
    if walk.elements > MAX_ELEMENTS:
        raise damaged("it has more elements than a slide has")
    walk.file.seek(position)
    head = walk.file.read(12)
    if len(head) < 8:
        raise damaged("an element lies beyond its end")
    group, number = struct.unpack("<HH", head[:4])
    tag = group << 16 | number
    if not walk.explicit or group == 0xFFFE:
        return _Element(tag, b"", struct.unpack("<I", head[4:8])[0], position + 8)
    if head[4:6] in _LONG:
        if len(head) < 12:
            raise damaged("an element lies beyond its end")
        return _Element(tag, head[4:6], struct.unpack("<I", head[8:12])[0], position + 12)
    return _Element(tag, head[4:6], struct.unpack("<H", head[6:8])[0], position + 8)


def _value(walk: _Walk, element: _Element) -> bytes:
    walk.file.seek(element.at)
    return walk.file.read(element.length)


def _after(walk: _Walk, element: _Element, depth: int) -> int:
    """Where the next element begins."""
    end = element.at if element.length == _UNDEFINED else element.at + element.length
    if end > walk.size:
        raise damaged("an element lies beyond its end")
    if element.tag == _FRAME_GROUPS or element.tag in _EXTENDED_OFFSETS:
        return _after_frames(walk, element)
    if element.is_sequence:
        return _after_items(walk, element, depth + 1)
    walk.held += element.length
    if walk.held > MAX_HELD_BYTES:
        raise damaged("its elements hold more than those of a slide")
    return end


def _after_items(walk: _Walk, sequence: _Element, depth: int) -> int:
    if depth > MAX_DEPTH:
        raise damaged("its sequences are nested deeper than those of a slide")
    end = walk.size if sequence.length == _UNDEFINED else sequence.at + sequence.length
    position = sequence.at
    while position < end:
        item = _element(walk, position)
        if item.tag == _SEQUENCE_END:
            return item.at
        if item.tag != _ITEM:
            raise damaged("a sequence holds something else than items")
        position = item.at
        item_end = end if item.length == _UNDEFINED else item.at + item.length
        if item_end > end:
            raise damaged("an element lies beyond its end")
        while position < item_end:
            element = _element(walk, position)
            if element.tag == _ITEM_END:
                position = element.at
                break
            position = _after(walk, element, depth)
    return position


def _after_frames(walk: _Walk, groups: _Element) -> int:
    """Where the groups of the single frames end: two million have elements by the ten million, which only a faster reader may walk."""
    if groups.length != _UNDEFINED:
        return groups.at + groups.length
    return walk.size


def _check_numbers(numbers: dict[int, int], size: int, syntax: Syntax) -> None:
    """Refuse counts from which a parser would lay out tables larger than those of any slide."""
    width, height = numbers.get(_TOTAL_COLUMNS, 0), numbers.get(_TOTAL_ROWS, 0)
    columns, rows = numbers.get(_COLUMNS, 0), numbers.get(_ROWS, 0)
    if min(width, height, columns, rows) < 1:
        return  # it is no slide, as its parser will say
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise InvalidImageError("SLIDE_TOO_LARGE", f"The slide is {width} x {height} px; a side has at most {MAX_SIDE} px.")
    tiles = -(-width // columns) * -(-height // rows) * max(1, numbers.get(_PATHS, 1)) * max(1, numbers.get(_PLANES, 1))
    frames = numbers.get(_FRAMES, 1)
    least = columns * rows if syntax.is_native else 8
    if max(tiles, frames) > MAX_FRAMES or frames * least > size:
        raise damaged("it names more tiles than it holds")
