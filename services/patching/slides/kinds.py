"""What a file is that is no slide, by its first bytes, so that a refusal can say it."""

from __future__ import annotations

from typing import Final

_IMAGE: Final = "; an image of one field is read by `dl4all diagnose`"
_EXPORT: Final = "; export it as a tiled TIFF, SVS or DICOM"
_MAGIC: Final = (
    (0, b"\xff\xd8\xff", "a JPEG image", _IMAGE),
    (0, b"\x89PNG", "a PNG image", _IMAGE),
    (0, b"BM", "a BMP image", _IMAGE),
    (0, b"GIF8", "a GIF image", _EXPORT),
    (8, b"WEBP", "a WebP image", _EXPORT),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 image", _EXPORT),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 codestream", _EXPORT),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL image", _EXPORT),
    (0, b"\xff\x0a", "a JPEG XL codestream", _EXPORT),
    (4, b"ftyp", "an AVIF or HEIF image, or a film", _EXPORT),
    (0, b"ZISRAWFILE", "a CZI file of a Zeiss microscope", _EXPORT),
    (0, b"\xda\xce\xbe\x0a", "an ND2 file of a Nikon microscope", _EXPORT),
    (0, b"\x89HDF", "an HDF5 file", _EXPORT),
    (0, b"\xd0\xcf\x11\xe0", "an OLE file, such as OIB or ZVI", _EXPORT),
    (0, b"PK\3\4", "a ZIP archive", "; unpack it"),
    (0, b"\x1f\x8b", "a gzip archive", "; unpack it"),
    (0, b"<?xml", "an XML file, such as the index of another slide format", _EXPORT),
    (0, b"%PDF", "a PDF file", _EXPORT),
    (0, b"\x02\0\0\0UL", "DICOM data without the preamble of a file", "; save it as a DICOM file"),
    (0, b"\x08\0\x05\0", "DICOM data without the preamble of a file", "; save it as a DICOM file"),
    (0, b"\x08\0\x08\0", "DICOM data without the preamble of a file", "; save it as a DICOM file"),
)


def refusal_of(head: bytes) -> str:
    """What the file with this beginning is, and what would be read."""
    for at, magic, name, advice in _MAGIC:
        if head.startswith(magic, at):
            return f"The slide is {name}. Slides are read as tiled TIFF, BigTIFF, SVS or DICOM{advice}."
    return "The slide is in no format that is read here: tiled TIFF, BigTIFF, SVS, or DICOM."
