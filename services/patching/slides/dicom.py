"""Whole-slide images in DICOM: the files of one slide, read tile by tile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.common.errors import InvalidImageError
from services.patching.slides.dicom_folder import DicomFile
from services.patching.slides.dicom_frames import check_pixels, decode_frame
from services.patching.slides.dicom_header import Syntax
from services.patching.slides.dicom_streams import streams_of
from services.patching.slides.slide import SlideFacts, SlideNote, damaged, plausible_microns

Bytes = NDArray[np.uint8]


class DicomSource:
    """The full resolution of a DICOM whole-slide image.

    Args:
        files: of one slide.

    Raises:
        InvalidImageError: with a reason SLIDE_*.
    """

    facts: SlideFacts

    def __init__(self, files: Sequence[DicomFile]) -> None:
        # Imported here: the import takes half a second, and only DICOM needs it.
        from wsidicom import WsiDicom
        from wsidicom.file.wsidicom_file_source import WsiDicomFileSource
        from wsidicom.geometry import Point

        # These alone: the reader drops a file that it cannot read, and would take a smaller resolution for the full one.
        full = _full_resolution(files)
        for file in full:
            check_pixels(file.header)
            if file.header.number("planar") and file.header.syntax.is_native:
                raise InvalidImageError(
                    "SLIDE_UNSUPPORTED", "The slide stores its colours in separate planes; save it with the colours of a pixel together."
                )
        self._slide: Any = None
        try:
            self._slide = source = WsiDicomFileSource(streams_of(full))  # which is closed where the next line fails
            self._slide = WsiDicom(source, True)
            level = self._slide.levels[0]
            self._point, self._data = Point, level.default_instance.image_data
            self._syntax = Syntax(str(self._data.transfer_syntax))
            self._label = next((file.header.colours for file in full if file.header.syntax is self._syntax), "RGB")
            self.facts = SlideFacts(
                width=int(level.size.width),
                height=int(level.size.height),
                tile_width=int(level.tile_size.width),
                tile_height=int(level.tile_size.height),
                format="DICOM",
                levels=len({(file.header.width, file.header.height) for file in files}),
                microns_per_pixel=_microns(level),
                notes=_notes(full),
            )
        except InvalidImageError:
            self.close()
            raise
        except Exception as error:  # the file is at fault for any error of the parser
            self.close()
            raise damaged("it is not a DICOM slide that can be read") from error

    def tile(self, row: int, column: int) -> Bytes:
        """See ``TileSource``."""
        width, height = self.facts.tile_width, self.facts.tile_height
        try:
            position = (self._point(column, row), self._data.default_z, self._data.default_path)
            if self._data.is_sparse(*position):
                return np.full((height, width, 3), 255, np.uint8)
            pixels = decode_frame(self._data.get_encoded_tile(*position), width, height, self._syntax, self._label)
        except InvalidImageError:
            raise
        except Exception as error:  # as above
            raise damaged(f"the tile in row {row}, column {column} cannot be decoded") from error
        if pixels.dtype != np.uint8 or pixels.shape != (height, width, 3):
            raise damaged(f"the tile in row {row}, column {column} has another size or depth than the header says")
        return pixels

    def close(self) -> None:
        """Close the files."""
        if self._slide is not None:
            self._slide.close()


def _microns(level: Any) -> float | None:
    spacing = level.pixel_spacing
    return None if spacing is None else plausible_microns(1000.0 * float(spacing.width))


def _full_resolution(files: Sequence[DicomFile]) -> list[DicomFile]:
    """The files of the largest resolution."""
    base = max(files, key=lambda file: file.header.width * file.header.height).header
    key = (base.width, base.height, base.text("series"))
    return [file for file in files if (file.header.width, file.header.height, file.header.text("series")) == key]


def _notes(full: Sequence[DicomFile]) -> tuple[SlideNote, ...]:
    header = full[0].header
    leaves_out = header.text("organization") != "TILED_FULL" and sum(file.header.frames for file in full) < header.grid
    return (SlideNote.SPARSE_TILES,) if leaves_out else ()
