"""Slides in DICOM: one file, or a folder with the files of one slide."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from services.common.errors import InvalidImageError
from services.patching.slides.dicom_structure import Syntax, check_dicom
from services.patching.slides.jpeg import check_jpeg
from services.patching.slides.jpeg2000 import check_jpeg2000
from services.patching.slides.rle import decode_rle
from services.patching.slides.slide import STORED_FACTOR, STORED_MARGIN, SlideFacts, damaged, plausible_microns

Bytes = NDArray[np.uint8]
MAX_FILES: Final = 256
_MAGIC_AT: Final = 128


def is_dicom(path: Path) -> bool:
    """Whether a path is a DICOM file, or a folder that holds one."""
    if path.is_dir():
        return any(is_dicom(p) for p in _files(path))
    with path.open("rb") as file:
        file.seek(_MAGIC_AT)
        return file.read(4) == b"DICM"


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file() and not p.is_symlink())[:MAX_FILES]


class DicomSource:
    """The full resolution of a DICOM whole-slide image.

    Args:
        path: file or folder.

    Raises:
        InvalidImageError: with a reason SLIDE_*.
    """

    facts: SlideFacts

    def __init__(self, path: Path) -> None:
        # Imported here: the import takes half a second, and only DICOM needs it.
        from wsidicom import WsiDicom
        from wsidicom.geometry import Point

        files = [p for p in _files(path) if is_dicom(p)] if path.is_dir() else [path]
        for file in files:
            with file.open("rb") as opened:
                check_dicom(opened)
        self._slide: Any = None
        try:
            self._slide = WsiDicom.open(files)
            level = self._slide.levels[0]
            self._point, self._data = Point, level.default_instance.image_data
            if self._data.samples_per_pixel != 3 or self._data.bits != 8:
                raise InvalidImageError("SLIDE_NOT_RGB", "The slide is not in RGB colour of 8 bit; stains can only be told in colour.")
            self._syntax = Syntax(str(self._data.transfer_syntax))
            self.facts = SlideFacts(
                width=int(level.size.width),
                height=int(level.size.height),
                tile_width=int(level.tile_size.width),
                tile_height=int(level.tile_size.height),
                format="DICOM",
                levels=len(self._slide.levels),
                microns_per_pixel=_microns(level),
                notes=(),
            )
        except InvalidImageError:
            self.close()
            raise
        except Exception as error:  # the file is at fault for any error of the parser
            self.close()
            raise damaged("it is not a DICOM slide that can be read") from error

    def tile(self, row: int, column: int) -> Bytes:
        """See ``TileSource``."""
        try:
            position = (self._point(column, row), self._data.default_z, self._data.default_path)
            pixels = self._decoded(position)
        except InvalidImageError:
            raise
        except Exception as error:  # as above
            raise damaged(f"the tile in row {row}, column {column} cannot be decoded") from error
        if pixels.dtype != np.uint8 or pixels.shape != (self.facts.tile_height, self.facts.tile_width, 3):
            raise damaged(f"the tile in row {row}, column {column} has another size than the header says")
        return pixels

    def close(self) -> None:
        """Close the files."""
        if self._slide is not None:
            self._slide.close()

    def _decoded(self, position: tuple[Any, float, str]) -> Bytes:
        """Decode a tile whose stream has told that it is of the size that the header says. A tile that the file leaves out is blank."""
        encoded, width, height = self._data.get_encoded_tile(*position), self.facts.tile_width, self.facts.tile_height
        if len(encoded) > STORED_FACTOR * 3 * width * height + STORED_MARGIN:
            raise damaged("a tile takes more bytes than its pixels could")
        if self._syntax.is_jpeg or self._syntax.is_jpeg_ls:
            check_jpeg(encoded, width, height, 3, is_ls=self._syntax.is_jpeg_ls)
        elif self._syntax is Syntax.RLE:
            return decode_rle(encoded, width, height)
        elif not self._syntax.is_native:
            check_jpeg2000(encoded, width, height, 3)
        elif len(encoded) != 3 * width * height:
            raise damaged("a tile holds fewer or more bytes than its size takes")
        return np.asarray(self._data.get_decoded_tile(*position, False), np.uint8)


def _microns(level: Any) -> float | None:
    spacing = level.pixel_spacing
    return None if spacing is None else plausible_microns(1000.0 * float(spacing.width))
