"""What a file is, by its first bytes and the first directory of a TIFF, so that a refusal can say it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from services.common.file_kinds import BMP, JPEG, PNG, TIFF_COMPRESSIONS, name_of
from services.common.image_structure import frame_of

_USUAL_BITS: Final = 8
_LS, _LOSSLESS, _ARITHMETIC = 0xF7, (0xC3, 0xC7, 0xCB, 0xCF), 0xC9
_READ: Final = "read here are JPEG, PNG, TIFF and BMP"
_BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLE_FORMAT, _PLANAR, _MAX_SAMPLE = 258, 259, 262, 339, 284, 281
_USED: Final = (_BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLE_FORMAT, _PLANAR, _MAX_SAMPLE)
_COMPRESSIONS_READ: Final = (1, 5, 6, 7, 8, 32773, 32946)
"""None, LZW, JPEG in two forms, Deflate, PackBits, Deflate under its older number."""
_BITS_READ: Final = (1, 2, 4, 8, 16)
"""Those of grey images and palettes among them, which are refused as such."""
_FLOAT, _COMPLEX = 3, (5, 6)
_SEPARATE: Final = 2
_MOST_ENTRIES: Final = 4096
_TYPES: Final = {1: "B", 3: "H", 4: "L", 16: "Q"}
_ORDERS: Final = {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">"}


@dataclass(frozen=True)
class TiffFacts:
    """The first directory of a TIFF.

    Attributes:
        bits: of a sample.
        compression: name or number of a compression that is not read here; empty for others.
        photometric: number of the colour model.
        is_float: whether samples are floating-point or complex numbers.
        is_planar: whether each colour is stored in a plane of its own.
        max_sample: largest value in use, as the file says; 0 where it does not.
    """

    bits: int
    compression: str
    is_float: bool
    is_planar: bool
    max_sample: int
    photometric: int

    @property
    def refusal(self) -> str:
        """Why the file is not read, and what would be; empty where its kind is read."""
        if self.compression:
            return f"The TIFF is compressed as {self.compression}, which is not read here; save it with Deflate, LZW, JPEG or without compression."
        if self.is_float:
            return "The TIFF holds floating-point numbers, not light of a camera; save it in RGB of 8 or 16 bit."
        if self.bits not in _BITS_READ:
            return f"The TIFF has {self.bits} bits a sample, which are not read here; save it in RGB of 8 or 16 bit."
        return ""

    @property
    def unread(self) -> str:
        """What a whole file is that no reader here opens."""
        return (
            f"The TIFF is of a kind that is not read here (photometric {self.photometric}, {self.bits} bits a sample); save it in RGB of 8 or 16 bit."
        )


def refusal_of(encoded: bytes) -> str:
    """What a file that could not be opened is, and what is read here."""
    if encoded[128:132] == b"DICM":
        return f"The file is a DICOM file; {_READ}. Slides in DICOM are read by DiagnoseSlide and by `dl4all slide`."
    if name_of(encoded) == JPEG and (kind := _jpeg_kind(*frame_of(encoded))):
        return f"The file is {kind}, which is not read here; save it as an ordinary JPEG of 8 bit."
    name = name_of(encoded)
    if name and name not in (JPEG, PNG, BMP):
        return f"The file is {name}; {_READ}."
    return "The bytes are not an image in a format that is read here: JPEG, PNG, TIFF or BMP."


def _jpeg_kind(code: int, bits: int) -> str:
    if code == _LS:
        return "a JPEG-LS image"
    if code in _LOSSLESS:
        return "a lossless JPEG"
    if code >= _ARITHMETIC:
        return "an arithmetic-coded JPEG"
    return f"a JPEG of {bits} bit" if code and bits != _USUAL_BITS else ""


def tiff_facts(encoded: bytes) -> TiffFacts | None:
    """The first directory of a TIFF; None where it cannot be read or the file is no TIFF."""
    order = _ORDERS.get(encoded[:4])
    if order is None:
        return None
    try:
        tags = dict(_first_values(encoded, order))
    except (struct.error, ValueError, OverflowError):
        return None
    return TiffFacts(
        bits=tags.get(_BITS, 1),
        compression=_compression(tags.get(_COMPRESSION, 1)),
        is_float=tags.get(_SAMPLE_FORMAT, 1) in (_FLOAT, *_COMPLEX),
        is_planar=tags.get(_PLANAR, 1) == _SEPARATE,
        max_sample=tags.get(_MAX_SAMPLE, 0),
        photometric=tags.get(_PHOTOMETRIC, 0),
    )


def _compression(number: int) -> str:
    return "" if number in _COMPRESSIONS_READ else TIFF_COMPRESSIONS.get(number, f"number {number}")


def _first_values(encoded: bytes, order: str) -> Iterator[tuple[int, int]]:
    """Tags of whole numbers with the first value of each."""
    is_big = encoded[2:4] in (b"+\0", b"\0+")
    count_format, head, offset_format, at = ("Q", "HHQ", "Q", 8) if is_big else ("H", "HHL", "L", 4)
    (directory,) = struct.unpack_from(order + offset_format, encoded, at)
    (count,) = struct.unpack_from(order + count_format, encoded, directory)
    place = directory + struct.calcsize(order + count_format)
    inline = struct.calcsize(order + offset_format)
    for _ in range(min(count, _MOST_ENTRIES)):
        tag, kind, number = struct.unpack_from(order + head, encoded, place)
        value = place + struct.calcsize(order + head)
        place = value + inline
        letter = _TYPES.get(kind)
        if tag not in _USED or letter is None or number < 1:
            continue
        if number * struct.calcsize(order + letter) > inline:
            (value,) = struct.unpack_from(order + offset_format, encoded, value)
        if value + struct.calcsize(order + letter) <= len(encoded):
            yield tag, int(struct.unpack_from(order + letter, encoded, value)[0])
