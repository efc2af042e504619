"""What a file is that is no slide, by its first bytes, so that a refusal can say it."""

from __future__ import annotations

from typing import Final

from services.common.file_kinds import BARE_DICOM, BMP, GZIP, JPEG, PNG, ZIP, name_of

_EXPORT: Final = "; export it as a tiled TIFF, SVS or DICOM"
_ADVICE: Final = {
    **dict.fromkeys((JPEG, PNG, BMP), "; an image of one field is read by `dl4all diagnose`"),
    **dict.fromkeys((ZIP, GZIP), "; unpack it"),
    BARE_DICOM: "; save it as a DICOM file",
}


def refusal_of(head: bytes) -> str:
    """What the file with this beginning is, and what would be read."""
    name = name_of(head)
    if name:
        return f"The slide is {name}. Slides are read as tiled TIFF, BigTIFF, SVS or DICOM{_ADVICE.get(name, _EXPORT)}."
    return "The slide is in no format that is read here: tiled TIFF, BigTIFF, SVS, or DICOM."
