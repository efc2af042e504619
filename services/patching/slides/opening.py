"""Open a slide of any format that is read here."""

from __future__ import annotations

from pathlib import Path

from services.common.errors import InvalidImageError
from services.patching.slides.dicom import DicomSource, is_dicom
from services.patching.slides.slide import Slide, TileSource, check_density
from services.patching.slides.tiff import TiffSource
from services.patching.slides.tiff_structure import is_tiff


def open_slide(path: Path) -> Slide:
    """Open a slide: a TIFF or SVS file, a DICOM file, or a folder with the DICOM files of one slide.

    Raises:
        InvalidImageError: SLIDE_UNKNOWN_FORMAT, SLIDE_UNREADABLE, or another reason SLIDE_*.
    """
    try:
        source = _source(path)
    except OSError as error:
        raise InvalidImageError("SLIDE_UNREADABLE", "The service may not read the slide, or its disk fails; tell its operator.") from error
    try:
        slide = Slide(source)
        check_density(source.facts, _stored(path))
        return slide
    except BaseException:
        source.close()
        raise


def _source(path: Path) -> TileSource:
    if not path.is_dir():
        with path.open("rb") as file:
            head = file.read(8)
        if not head:
            raise InvalidImageError("IMAGE_EMPTY", "The slide has no bytes.")
        if is_tiff(head):
            return TiffSource(path)
    if is_dicom(path):
        return DicomSource(path)
    raise InvalidImageError("SLIDE_UNKNOWN_FORMAT", "The slide is in no format that is read here: tiled TIFF, BigTIFF, SVS, or DICOM.")


def _stored(path: Path) -> int:
    """Bytes of a file, or of the files of a folder together."""
    files = [p for p in path.iterdir() if p.is_file()] if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)
