"""Slides in DICOM: one file, or a folder with the files of one slide."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from services.common.errors import InvalidImageError
from services.patching.slides.segments import jpeg2000_size, jpeg_size
from services.patching.slides.slide import SlideFacts, damaged, plausible_microns

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
        self._slide: Any = None
        try:
            self._slide = WsiDicom.open(files)
            level = self._slide.levels[0]
            self._point, self._data = Point, level.default_instance.image_data
            if self._data.samples_per_pixel != 3 or self._data.bits != 8:
                raise InvalidImageError("SLIDE_NOT_RGB", "The slide is not in RGB colour of 8 bit; stains can only be told in colour.")
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
            self._check_size(self._data.get_encoded_tile(*position))
            return np.asarray(self._data.get_decoded_tile(*position, False), np.uint8)
        except InvalidImageError:
            raise
        except Exception as error:  # as above
            raise damaged(f"the tile in row {row}, column {column} cannot be decoded") from error

    def close(self) -> None:
        """Close the files."""
        if self._slide is not None:
            self._slide.close()

    def _check_size(self, encoded: bytes) -> None:
        """Refuse a tile that announces another size than the header."""
        if encoded[:2] == b"\xff\xd8":
            announced = jpeg_size(encoded)
        elif encoded[:4] == b"\xff\x4f\xff\x51":
            announced = jpeg2000_size(encoded)
        else:
            return
        if announced != (self.facts.tile_width, self.facts.tile_height):
            raise damaged(f"a tile calls itself {announced[0]} x {announced[1]} px where the header says otherwise")


def _microns(level: Any) -> float | None:
    spacing = level.pixel_spacing
    return None if spacing is None else plausible_microns(1000.0 * float(spacing.width))
