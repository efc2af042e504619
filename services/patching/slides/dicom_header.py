"""What the header of a DICOM file says: of which kind it is, how its pixels are stored, and to which slide it belongs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from services.common.errors import InvalidImageError

WHOLE_SLIDE: Final = "1.2.840.10008.5.1.4.1.1.77.1.6"
SINGLE_IMAGES: Final = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.77.1.2",
        "1.2.840.10008.5.1.4.1.1.77.1.3",
        "1.2.840.10008.5.1.4.1.1.77.1.4",
        "1.2.840.10008.5.1.4.1.1.7",
        "1.2.840.10008.5.1.4.1.1.7.4",
    }
)
"""Classes of single images that are read as a slide: microscopic, on slide coordinates, photographic, and secondary captures."""
TEXTS: Final[Mapping[int, str]] = {
    0x00080008: "image_type",
    0x00080016: "sop_class",
    0x00080018: "instance",
    0x00080019: "pyramid",
    0x0020000D: "study",
    0x0020000E: "series",
    0x00200052: "frame_of_reference",
    0x00200242: "concatenated",
    0x00209161: "concatenation",
    0x00209311: "organization",
    0x00280004: "colours",
    0x00280008: "frames",
    0x00280030: "spacing",
    0x00400512: "container",
}
"""Elements whose text is kept."""
NUMBERS: Final[Mapping[int, str]] = {
    0x00209162: "part",
    0x00209163: "parts",
    0x00280002: "samples",
    0x00280006: "planar",
    0x00280010: "rows",
    0x00280011: "columns",
    0x00280100: "allocated",
    0x00280101: "stored",
    0x00280103: "signed",
    0x00480006: "width",
    0x00480007: "height",
    0x00480302: "paths",
    0x00480303: "planes",
}
"""Elements whose whole number is kept."""
_NOT_READ: Final[Mapping[str, str]] = {
    "1.2.840.10008.1.2.2": "big endian",
    "1.2.840.10008.1.2.1.99": "deflated",
    "1.2.840.10008.1.2.4.110": "JPEG XL",
    "1.2.840.10008.1.2.4.111": "JPEG XL",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
}


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

    @property
    def is_rle(self) -> bool:
        """Whether its frames are run lengths."""
        return self is Syntax.RLE

    @classmethod
    def named(cls, uid: str) -> Syntax:
        """The transfer syntax of this identifier.

        Raises:
            InvalidImageError: SLIDE_UNSUPPORTED: it is none that is read.
        """
        try:
            return cls(uid)
        except ValueError as error:
            shown = f"{_NOT_READ[uid]}, {uid}" if uid in _NOT_READ else uid[:64]
            message = f"The slide's transfer syntax ({shown}) is not read; use JPEG, JPEG-LS, JPEG 2000, RLE or uncompressed little endian."
            raise InvalidImageError("SLIDE_UNSUPPORTED", message) from error


@dataclass(frozen=True)
class DicomHeader:
    """The elements of a file that are kept.

    Attributes:
        syntax: how its pixels are stored.
        texts, numbers: values by the names in ``TEXTS`` and ``NUMBERS``.
        pixels_at: where the value of the pixels begins; 0 where there are none.
        pixels_bytes: length of that value; None where it is divided into frames.
        places: offset and length of the values, by the same names.
    """

    syntax: Syntax
    texts: Mapping[str, str]
    numbers: Mapping[str, int]
    pixels_at: int
    pixels_bytes: int | None
    places: Mapping[str, tuple[int, int]]

    def text(self, name: str) -> str:
        """A text; empty where the file does not have it."""
        return self.texts.get(name, "")

    def number(self, name: str, default: int = 0) -> int:
        """A whole number."""
        return self.numbers.get(name, default)

    @property
    def sop_class(self) -> str:
        """The kind of the object."""
        return self.text("sop_class")

    @property
    def flavour(self) -> str:
        """What a file of a slide shows: VOLUME, LABEL, OVERVIEW, THUMBNAIL; empty where it is not said."""
        parts = [part.strip() for part in self.text("image_type").split("\\")]
        return parts[2].upper() if len(parts) > 2 else ""

    @property
    def is_resolution(self) -> bool:
        """Whether it holds tiles of a slide, at some resolution."""
        return self.sop_class == WHOLE_SLIDE and self.flavour == "VOLUME"

    @property
    def colours(self) -> str:
        """The label of the colours: RGB, YBR_FULL and others."""
        return self.text("colours").upper()

    @property
    def frames(self) -> int:
        """Frames in the file."""
        text = self.texts.get("frames", "1")
        return int(text) if text.isascii() and text.isdigit() and len(text) <= 12 else 0

    @property
    def rows(self) -> int:
        """Height of a frame, px."""
        return self.number("rows")

    @property
    def columns(self) -> int:
        """Width of a frame, px."""
        return self.number("columns")

    @property
    def width(self) -> int:
        """Width of the slide, px; 0 where the file is no slide in tiles."""
        return self.number("width")

    @property
    def height(self) -> int:
        """Height of the slide, px; 0 where the file is no slide in tiles."""
        return self.number("height")

    @property
    def grid(self) -> int:
        """Tiles of one plane."""
        return math.ceil(self.width / self.columns) * math.ceil(self.height / self.rows) if min(self.columns, self.rows) > 0 else 0

    @property
    def tiles(self) -> int:
        """Tiles of all focal planes and optical paths."""
        return self.grid * max(1, self.number("paths", 1)) * max(1, self.number("planes", 1))
