"""A single image in DICOM, read as a slide of one tile, or of strips where it is not packed."""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.common.errors import InvalidImageError
from services.patching.slides.dicom_folder import DicomFile
from services.patching.slides.dicom_frames import as_rgb, check_pixels, decode_frame
from services.patching.slides.slide import MAX_TILE_BYTES, STORED_FACTOR, STORED_MARGIN, SlideFacts, damaged, plausible_microns

Bytes = NDArray[np.uint8]
_STRIP_BYTES: Final = 4 * 1024 * 1024
"""Uncompressed pixels are read in strips of about this many bytes."""
_ITEM, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE0DD
MAX_FRAGMENTS: Final = 65_536
"""Pieces that the stream of an image may be divided into."""


class SingleImageSource:
    """A DICOM file with one image that is not divided into tiles.

    Args:
        given: the file.

    Raises:
        InvalidImageError: with a reason SLIDE_*.
    """

    facts: SlideFacts

    def __init__(self, given: DicomFile) -> None:
        header = self._header = given.header
        if header.frames != 1:
            raise InvalidImageError(
                "SLIDE_UNSUPPORTED", f"The file holds {header.frames} images that are not the tiles of a slide; give one at a time."
            )
        if not header.pixels_at or min(header.columns, header.rows) < 1:
            raise damaged("it holds no pixels")
        check_pixels(header)
        if header.number("planar") not in (0, 1):
            raise damaged("its colours are stored in no order that DICOM knows")
        height = header.rows
        if header.syntax.is_native:
            height = max(1, min(height, _STRIP_BYTES // (3 * header.columns)))
        self._file = given.path.open("rb")
        try:
            self._check_extent(self._file.seek(0, 2))
        except BaseException:
            self._file.close()
            raise
        self.facts = SlideFacts(
            width=header.columns,
            height=header.rows,
            tile_width=header.columns,
            tile_height=height,
            format="DICOM",
            levels=1,
            microns_per_pixel=_microns(header.text("spacing")),
            notes=(),
        )

    def tile(self, row: int, column: int) -> Bytes:
        """See ``TileSource``."""
        header = self._header
        if header.syntax.is_native:
            return self._strip(row)
        try:
            pixels = decode_frame(self._stream(), header.columns, header.rows, header.syntax, header.colours)
        except InvalidImageError:
            raise
        except Exception as error:  # the file is at fault for any error of a decoder
            raise damaged("its pixels cannot be decoded") from error
        if pixels.dtype != np.uint8 or pixels.shape != (header.rows, header.columns, 3):
            raise damaged(f"its pixels (row {row}, column {column}) have another size or depth than the header says")
        return pixels

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _check_extent(self, size: int) -> None:
        header = self._header
        if not header.syntax.is_native:
            return
        held = header.pixels_bytes or 0
        if held < 3 * header.columns * header.rows or header.pixels_at + held > size:
            raise damaged("it holds fewer bytes than its pixels take")

    def _strip(self, row: int) -> Bytes:
        header, top = self._header, row * self.facts.tile_height
        height, width = min(self.facts.tile_height, header.rows - top), header.columns
        if header.number("planar") == 0:
            pixels = np.frombuffer(self._read(3 * top * width, 3 * height * width), np.uint8).reshape(height, width, 3)
        else:
            planes = [self._read((plane * header.rows + top) * width, height * width) for plane in range(3)]
            pixels = np.stack([np.frombuffer(plane, np.uint8).reshape(height, width) for plane in planes], axis=-1)
        return as_rgb(pixels, header.colours)

    def _read(self, offset: int, count: int) -> bytes:
        self._file.seek(self._header.pixels_at + offset)
        read = self._file.read(count)
        if len(read) != count:
            raise damaged("it holds fewer bytes than its pixels take")
        return read

    def _stream(self) -> bytes:
        """The stream of the image: all pieces after the table of offsets."""
        most = min(MAX_TILE_BYTES, STORED_FACTOR * 3 * self.facts.width * self.facts.height) + STORED_MARGIN
        position, pieces, held = self._header.pixels_at, list[bytes](), 0
        for _ in range(MAX_FRAGMENTS):
            self._file.seek(position)
            head = self._file.read(8)
            if len(head) < 8:
                raise damaged("its pixels end early")
            group, number, length = struct.unpack("<HHI", head)
            tag = group << 16 | number
            if tag == _SEQUENCE_END:
                return b"".join(pieces[1:])
            held += length
            if tag != _ITEM or held > most:
                raise damaged("its pixels are stored in no frame, or in more bytes than they could take")
            piece = self._file.read(length)
            if len(piece) < length:
                raise damaged("its pixels end early")
            pieces.append(piece)
            position += 8 + length
        raise damaged("its pixels are divided into more pieces than any microscope writes")


def _microns(spacing: str) -> float | None:
    """Micrometres per pixel out of the text of a pixel spacing, in mm."""
    try:
        return plausible_microns(1000.0 * float(spacing.split("\\")[-1]))
    except ValueError:
        return None
