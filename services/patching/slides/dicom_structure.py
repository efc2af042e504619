"""The elements of a DICOM file before its pixels, walked before a parser sees them: transfer syntax, sizes, counts and depth."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from services.common.errors import InvalidImageError
from services.patching.slides.dicom_header import NUMBERS, TEXTS, DicomHeader, Syntax
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
_META, _CLASS, _SYNTAX = 0x0002, 0x00020002, 0x00020010
MAX_SHORT: Final = 1024
"""Bytes of a text that is kept; longer ones are no identifiers."""
_FRAME_GROUPS: Final = 0x52009230
_EXTENDED_OFFSETS: Final = frozenset({0x7FE00001, 0x7FE00002})
_PIXELS: Final = 0x7FE00010
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED: Final = 0xFFFFFFFF
_LONG: Final = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})


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


@dataclass(frozen=True)
class DicomMeta:
    """The group before the data set.

    Attributes:
        sop_class: what kind of object the file holds; empty where it is not said.
        syntax: how it is stored, as written.
        end: where the data set begins.
    """

    sop_class: str
    syntax: str
    end: int


def read_meta(file: BinaryIO) -> DicomMeta:
    """Read the group before the data set.

    Raises:
        InvalidImageError: SLIDE_DAMAGED: an element lies outside the file, or it does not say how its pixels are stored.
    """
    return _meta(_Walk(file, file.seek(0, 2)))


def check_dicom(file: BinaryIO) -> DicomHeader:
    """Walk the elements up to the pixels. The groups of the single frames are stepped over where their length is given.

    Args:
        file: open for reading, seekable, at any position.

    Returns:
        What the elements say.

    Raises:
        InvalidImageError: SLIDE_UNSUPPORTED: another transfer syntax; SLIDE_TOO_LARGE: more pixels than are read; SLIDE_DAMAGED: an element lies
            outside the file, or there are more elements, frames or levels of sequences than a slide has.
    """
    walk = _Walk(file, file.seek(0, 2))
    meta = _meta(walk)
    syntax = Syntax.named(meta.syntax)
    walk.explicit = syntax is not Syntax.IMPLICIT
    found = _Found()
    position = meta.end
    while position < walk.size:
        element = _element(walk, position)
        if element.tag == _PIXELS:
            found.pixels_at, found.pixels_bytes = element.at, None if element.length == _UNDEFINED else element.length
            break
        if element.tag in NUMBERS or element.tag in TEXTS:
            found.places[NUMBERS.get(element.tag) or TEXTS[element.tag]] = element.at, element.length
        if element.tag in NUMBERS and element.length in (2, 4):
            found.numbers[NUMBERS[element.tag]] = int.from_bytes(_value(walk, element), "little")
        elif element.tag in TEXTS and element.length <= MAX_SHORT:
            found.texts[TEXTS[element.tag]] = _value(walk, element).decode("latin-1").strip(" \0")
        position = _after(walk, element, 0)
    found.texts.setdefault("sop_class", meta.sop_class)
    header = DicomHeader(syntax, found.texts, found.numbers, found.pixels_at, found.pixels_bytes, found.places)
    _check_numbers(header, walk.size)
    return header


@dataclass
class _Found:
    """What the walk has met."""

    texts: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    pixels_at: int = 0
    pixels_bytes: int | None = 0


def _meta(walk: _Walk) -> DicomMeta:
    position, named, sop_class = _START, "", ""
    while position < walk.size:
        element = _element(walk, position)
        if element.tag >> 16 != _META:
            break
        if element.tag in (_SYNTAX, _CLASS) and element.length <= 64:
            text = _value(walk, element).strip(b" \0").decode("ascii", "replace")
            named, sop_class = (text, sop_class) if element.tag == _SYNTAX else (named, text)
        if element.is_sequence:
            raise damaged("its head holds a sequence")
        position = _after(walk, element, 0)
    if not named:
        raise damaged("it does not say how its pixels are stored")
    return DicomMeta(sop_class, named, position)


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


def _check_numbers(header: DicomHeader, size: int) -> None:
    """Refuse counts from which a parser would lay out tables larger than those of any slide."""
    width, height, columns, rows = header.width, header.height, header.columns, header.rows
    if min(width, height, columns, rows) < 1:
        return  # it is no slide in tiles
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise InvalidImageError("SLIDE_TOO_LARGE", f"The slide is {width} x {height} px; a side has at most {MAX_SIDE} px.")
    least = columns * rows if header.syntax.is_native else 8
    if max(header.tiles, header.frames) > MAX_FRAMES or header.frames * least > size:
        raise damaged("it names more tiles than it holds")
