"""Names of kinds of files and of compressions, so that a refusal can say what a file is."""

from __future__ import annotations

from typing import Final

JPEG, PNG, BMP = "a JPEG image", "a PNG image", "a BMP image"
ZIP, GZIP = "a ZIP archive", "a gzip archive"
BARE_DICOM = "DICOM data without the preamble of a file"
_MAGIC: Final = (
    (0, b"\xff\xd8\xff", JPEG),
    (0, b"\x89PNG", PNG),
    (0, b"BM", BMP),
    (0, b"GIF8", "a GIF image"),
    (8, b"WEBP", "a WebP image"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 codestream"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    (0, b"\xff\x0a", "a JPEG XL codestream"),
    (4, b"ftypavi", "an AVIF image"),
    (4, b"ftyphei", "a HEIF image"),
    (4, b"ftypmif1", "a HEIF image"),
    (4, b"ftyp", "a film, or an image of a kind like HEIF"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"%PDF", "a PDF file"),
    (0, b"ZISRAWFILE", "a CZI file of a Zeiss microscope"),
    (0, b"\xda\xce\xbe\x0a", "an ND2 file of a Nikon microscope"),
    (0, b"\x89HDF", "an HDF5 file"),
    (0, b"\xd0\xcf\x11\xe0", "an OLE file, such as OIB or ZVI"),
    (0, b"SIMPLE  =", "a FITS file"),
    (0, b"v/1\x01", "an OpenEXR image"),
    (0, b"PK\3\4", ZIP),
    (0, b"\x1f\x8b", GZIP),
    (0, b"<?xml", "an XML file, such as the index of another slide format"),
    (0, b"\0\5\x16\7", "a file of metadata that macOS writes beside an image"),
    (0, b"\x02\0\0\0UL", BARE_DICOM),
    (0, b"\x08\0\x05\0", BARE_DICOM),
    (0, b"\x08\0\x08\0", BARE_DICOM),
)
TIFF_COMPRESSIONS: Final = {
    2: "CCITT",
    3: "CCITT",
    4: "CCITT",
    6: "JPEG of the old kind",
    22610: "JPEG XR",
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    34712: "JPEG 2000",
    34887: "LERC",
    34892: "lossy JPEG of DNG",
    34925: "LZMA",
    34933: "PNG",
    34934: "JPEG XR",
    50000: "Zstandard",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
"""Compressions of TIFF by number, those that are not read everywhere."""


def name_of(head: bytes) -> str:
    """The kind of a file, with its article; empty where it is not known.

    Args:
        head: its first bytes, 16 at least.
    """
    return next((name for at, magic, name in _MAGIC if head.startswith(magic, at)), "")
