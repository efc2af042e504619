"""Open a slide of any format that is read here."""

from __future__ import annotations

from pathlib import Path

from services.common.errors import InvalidImageError
from services.patching.slides.dicom import DicomSource
from services.patching.slides.dicom_folder import DicomFiles, dicom_file, dicom_folder, has_dicom_magic
from services.patching.slides.dicom_single import SingleImageSource
from services.patching.slides.kinds import refusal_of
from services.patching.slides.slide import Slide, TileSource, check_density
from services.patching.slides.tiff import TiffSource
from services.patching.slides.tiff_structure import is_tiff


def open_slide(path: Path, root: Path | None = None) -> Slide:
    """Open a slide: a TIFF or SVS file, a DICOM file, or a folder with the DICOM files of one slide.

    Args:
        path: of the file or folder.
        root: where slides may lie; links in a folder may lead to files below it.

    Raises:
        InvalidImageError: SLIDE_UNKNOWN_FORMAT, SLIDE_UNREADABLE, or another reason SLIDE_*.
        InvalidRequestError: SLIDE_PATH_INVALID: a link in the folder leaves the root.
    """
    try:
        source, stored = _source(path, root)
    except OSError as error:
        raise InvalidImageError("SLIDE_UNREADABLE", "The service may not read the slide, or its disk fails; tell its operator.") from error
    try:
        slide = Slide(source)
        check_density(source.facts, stored)
        return slide
    except BaseException:
        source.close()
        raise


def _source(path: Path, root: Path | None) -> tuple[TileSource, int]:
    """The file behind a slide, and its bytes."""
    if path.is_dir():
        return _dicom(dicom_folder(path, root))
    with path.open("rb") as file:
        head = file.read(16)
    if not head:
        raise InvalidImageError("IMAGE_EMPTY", "The slide has no bytes.")
    if is_tiff(head):
        return TiffSource(path), path.stat().st_size
    if has_dicom_magic(path):
        return _dicom(dicom_file(path))
    raise InvalidImageError("SLIDE_UNKNOWN_FORMAT", refusal_of(head))


def _dicom(found: DicomFiles) -> tuple[TileSource, int]:
    source = SingleImageSource(found.files[0]) if found.is_single_image else DicomSource(found.files)
    return source, found.stored
