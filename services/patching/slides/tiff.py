"""Slides in TIFF files: tiles or strips, classic or BigTIFF, single or pyramid; SVS among them."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, Final

import numpy as np
import tifffile
from numpy.typing import NDArray

from services.common.errors import InvalidImageError
from services.common.file_kinds import TIFF_COMPRESSIONS
from services.common.image_codec import PHANTOM_TEXT_KEY
from services.patching.slides.jpeg import check_jpeg_tables
from services.patching.slides.segments import Compression, SegmentForm, decode_segment
from services.patching.slides.slide import STORED_FACTOR, STORED_MARGIN, SlideFacts, SlideNote, damaged, plausible_microns
from services.patching.slides.tiff_structure import check_directories

Bytes = NDArray[np.uint8]
_RGB: Final = 2
_YCBCR: Final = 6
_ROWS_BYTES: Final = 4 * 1024 * 1024
"""Uncompressed strips are read in pieces of about this many bytes, however long they are."""
MAX_STRIPS: Final = 100_000
"""Strips of a slide without tiles: one for every row of the tallest that is known."""
_SAMPLE_KINDS: Final = {1: "whole numbers", 2: "signed numbers", 3: "floating-point numbers", 5: "complex numbers", 6: "complex numbers"}
_REDUCED: Final = 1
"""Bit of a page that is a reduced copy of another."""
_SAME_ASPECT: Final = 0.02
_LARGE_SHARE: Final = 0.05
"""Share of the largest page from which on a region of a Leica SCN is no overview."""
_PLAIN_RANGE: Final = 16
"""Largest difference of the samples of a colour within a blank tile."""
_PARSING: Final = (tifffile.TiffFileError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, ArithmeticError, OSError)
_WITH_YCBCR: Final = (Compression.JPEG, Compression.JPEG2000, Compression.APERIO_JPEG2000_YCBCR, Compression.APERIO_JPEG2000_RGB)
_UNIT_MICRONS: Final = {2: 25_400.0, 3: 10_000.0}


class TiffSource:
    """The full resolution of a TIFF file.

    Args:
        path: of the file.

    Raises:
        InvalidImageError: with a reason SLIDE_*.
    """

    facts: SlideFacts

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        try:
            check_directories(self._file)
            self._file.seek(0)
            self._open(self._file)
        except _PARSING as error:
            self._file.close()
            raise damaged("its directories cannot be read") from error
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def tile(self, row: int, column: int) -> Bytes:
        """See ``TileSource``."""
        facts = self.facts
        index = row * self._columns + column
        offset, count = int(self._offsets[index]), int(self._counts[index])
        height = facts.tile_height if self._tiled else min(facts.tile_height, facts.height - row * facts.tile_height)
        if count == 0:
            return np.full((height, facts.tile_width, 3), 255, np.uint8)
        if count > self._longest:
            raise damaged("a tile takes more bytes than its pixels could")
        self._file.seek(offset)
        tile = decode_segment(self._file.read(count), facts.tile_width, height, self._form)
        if self._shared[index] and (np.ptp(tile, axis=(0, 1)) > _PLAIN_RANGE).any():
            raise damaged("tiles that are not blank lie at one place")
        return tile

    def _open(self, file: Any) -> None:
        with tifffile.TiffFile(file) as parsed:
            pages = [p for p in parsed.pages if isinstance(p, tifffile.TiffPage)]
            page = _full_resolution(pages)
            levels = [*pages, *(page.pages or [])]
            size = file.seek(0, 2)
            for level in levels:
                if isinstance(level, tifffile.TiffPage):
                    _check_extent(level, size)
            self._form = _form_of(page, parsed.byteorder)
            _check_alone(page, pages)
            self._tiled = bool(page.is_tiled)
            self._lay_out(page)
            self._longest = STORED_FACTOR * self._tile_width * self._tile_height * self._form.samples * self._form.bits // 8 + STORED_MARGIN
            self.facts = SlideFacts(
                width=int(page.imagewidth),
                height=int(page.imagelength),
                tile_width=self._tile_width,
                tile_height=self._tile_height,
                format="SVS" if page.is_svs else "BigTIFF" if parsed.is_bigtiff else "TIFF",
                levels=_levels(page, levels),
                microns_per_pixel=_microns(page),
                notes=_notes(page, self._form, self._counts),
            )

    def _lay_out(self, page: Any) -> None:
        offsets, counts = np.asarray(page.dataoffsets, np.int64), np.asarray(page.databytecounts, np.int64)
        width, height = int(page.imagewidth), int(page.imagelength)
        if self._tiled:
            self._tile_width, self._tile_height = int(page.tilewidth), int(page.tilelength)
        else:
            self._tile_width, self._tile_height = width, min(int(page.rowsperstrip), height)
        if min(width, height, self._tile_width, self._tile_height) < 1:
            raise InvalidImageError("SLIDE_TOO_SMALL", "The slide, or its tiles, have no size.")
        if not self._tiled and self._form.compression is Compression.NONE:
            offsets, counts = self._in_rows(offsets, counts, width, height)
        self._columns = math.ceil(width / self._tile_width)
        if not self._tiled and math.ceil(height / self._tile_height) > MAX_STRIPS:
            raise InvalidImageError("SLIDE_NOT_TILED", f"The slide is stored in more than {MAX_STRIPS} strips; save it as a tiled TIFF.")
        needed = self._columns * math.ceil(height / self._tile_height)
        if len(offsets) != len(counts) or len(offsets) < needed:
            raise damaged("it names fewer tiles than its size takes")
        self._offsets, self._counts = offsets, counts
        self._shared = _shared(offsets[:needed], counts[:needed])

    def _in_rows(self, offsets: NDArray[np.int64], counts: NDArray[np.int64], width: int, height: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Divide uncompressed strips that are long into pieces of whole rows, all of one height that divides the strips'."""
        row_bytes = width * self._form.samples * self._form.bits // 8
        strip, longest = self._tile_height, max(1, _ROWS_BYTES // row_bytes)
        if strip <= longest:
            return offsets, counts
        strips = math.ceil(height / strip)
        rows = longest if strips == 1 else max(r for r in range(1, longest + 1) if strip % r == 0)
        ends = [min(height, (s + 1) * strip) for s in range(strips)]
        if len(counts) < strips or any(counts[s] < (end - s * strip) * row_bytes for s, end in enumerate(ends)):
            raise damaged("a strip holds fewer bytes than its rows take")
        starts = [(s, y) for s, end in enumerate(ends) for y in range(s * strip, end, rows)]
        self._tile_height = rows
        pieces = [min(rows, ends[s] - y) * row_bytes for s, y in starts]
        return np.array([offsets[s] + (y - s * strip) * row_bytes for s, y in starts], np.int64), np.array(pieces, np.int64)


def _shared(offsets: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which pieces share their bytes with another: some writers store a blank tile once for all.

    Raises:
        InvalidImageError: SLIDE_DAMAGED: pieces overlap in part.
    """
    order = np.lexsort((counts, offsets))
    order = order[counts[order] > 0]
    first, length = offsets[order], counts[order]
    same = (first[1:] == first[:-1]) & (length[1:] == length[:-1])
    if (~same & (first[:-1] + length[:-1] > first[1:])).any():
        raise damaged("its tiles overlap in the file")
    shared = np.zeros(len(offsets), np.bool_)
    shared[order[1:][same]] = shared[order[:-1][same]] = True
    return shared


def _check_extent(page: Any, size: int) -> None:
    offsets, counts = np.asarray(page.dataoffsets, np.int64), np.asarray(page.databytecounts, np.int64)
    if min(int(page.imagewidth), int(page.imagelength)) < 1:
        raise damaged("a resolution of its pyramid has no size")
    if len(offsets) == 0 or len(offsets) != len(counts):
        raise damaged("it does not say where its pixels are")
    if (offsets < 0).any() or (counts < 0).any() or (offsets + counts > size).any():
        raise damaged("pixels lie beyond the end of the file; was it copied whole?")


def _form_of(page: Any, byte_order: str) -> SegmentForm:
    bits = page.bitspersample
    samples = int(page.samplesperpixel)
    if int(page.photometric) not in (_RGB, _YCBCR) or samples not in (3, 4):
        raise InvalidImageError("SLIDE_NOT_RGB", "The slide is not in RGB colour; stains can only be told in colour.")
    kind = _SAMPLE_KINDS.get(int(page.sampleformat or 1), "samples of a kind that is not read")
    if bits not in (8, 16) or int(page.sampleformat or 1) != 1:
        raise InvalidImageError("SLIDE_UNSUPPORTED", f"The slide holds {kind} of {bits} bit; whole numbers of 8 or 16 bit are read.")
    if int(page.planarconfig or 1) != 1 or int(page.imagedepth or 1) != 1 or int(page.fillorder or 1) != 1:
        raise InvalidImageError(
            "SLIDE_UNSUPPORTED", "The slide stores its colours in separate planes, or is a volume; save it as a plain tiled TIFF."
        )
    try:
        compression = Compression(int(page.compression))
    except ValueError as error:
        named = TIFF_COMPRESSIONS.get(int(page.compression), "TIFF")
        message = f"The slide's compression ({named}, {int(page.compression)}) is not read; use JPEG, JPEG 2000, LZW or Deflate."
        raise InvalidImageError("SLIDE_UNSUPPORTED", message) from error
    predictor = int(page.predictor or 1)
    if predictor not in (1, 2):
        raise InvalidImageError("SLIDE_UNSUPPORTED", "The slide's samples are differences of a kind that is not read.")
    if int(page.photometric) == _YCBCR and compression not in _WITH_YCBCR:
        raise InvalidImageError("SLIDE_UNSUPPORTED", "The slide stores YCbCr colours without JPEG or JPEG 2000; save it in RGB.")
    check_jpeg_tables(bytes(page.jpegtables or b""))
    colours, _ = tifffile.tifffile.jpeg_decode_colorspace(page.photometric, page.planarconfig, page.extrasamples, page.is_jfif)
    labelled = int(page.photometric) == _YCBCR
    return SegmentForm(compression, samples, int(bits), predictor, byte_order, bytes(page.jpegtables or b""), colours, labelled)


def _full_resolution(pages: list[Any]) -> Any:
    """The largest page: in some formats a label or an overview comes first.

    Raises:
        InvalidImageError: SLIDE_UNSUPPORTED: the tiles overlap.
    """
    page = max(pages, key=lambda p: int(p.imagewidth) * int(p.imagelength))
    if page.is_bif or pages[0].is_bif:
        raise InvalidImageError("SLIDE_UNSUPPORTED", "The slide is a BIF of Ventana, whose tiles overlap; export it as a tiled TIFF, SVS or DICOM.")
    return page


def _check_alone(page: Any, pages: list[Any]) -> None:
    """Refuse a file with another picture that would not be judged.

    Raises:
        InvalidImageError: SLIDE_SEVERAL.
    """
    if any(_is_another(p, page, bool(pages[0].is_scn)) for p in pages if p is not page):
        raise InvalidImageError(
            "SLIDE_SEVERAL",
            "The TIFF holds more than one picture of full size, such as focal planes or regions; save the one to be judged by itself.",
        )


def _is_another(other: Any, page: Any, has_regions: bool) -> bool:
    """Whether a page is a picture of its own, not a resolution, a label or an overview. The focal planes of an NDPI are known to be such."""
    if int(other.subfiletype or 0) & _REDUCED or page.is_ndpi:
        return False
    across, down = page.imagewidth / max(1, other.imagewidth), page.imagelength / max(1, other.imagelength)
    is_large = across * down < 1 / _LARGE_SHARE
    return (across, down) == (1.0, 1.0) or (has_regions and is_large and abs(across / down - 1) > _SAME_ASPECT)


def _levels(page: Any, pages: list[Any]) -> int:
    """Resolutions of one picture: the same aspect at smaller size; labels and macro pictures have another."""
    aspect = page.imagewidth / page.imagelength
    return sum(1 for p in pages if isinstance(p, tifffile.TiffPage) and abs(p.imagewidth / p.imagelength / aspect - 1) < _SAME_ASPECT)


def _microns(page: Any) -> float | None:
    found = re.search(r"\bMPP\s*=\s*([0-9.]+)", page.description or "") if page.is_svs else None
    if found is not None:
        try:
            return plausible_microns(float(found[1]))
        except ValueError:
            return None
    tag, unit = page.tags.get("XResolution"), page.tags.get("ResolutionUnit")
    if tag is None or unit is None or not isinstance(tag.value, tuple) or len(tag.value) != 2 or 0 in tag.value:
        return None
    micron = _UNIT_MICRONS.get(int(unit.value))
    return None if micron is None else plausible_microns(micron * tag.value[1] / tag.value[0])


def _notes(page: Any, form: SegmentForm, counts: NDArray[np.int64]) -> tuple[SlideNote, ...]:
    notes = []
    if form.bits == 16:
        notes.append(SlideNote.SCALED_FROM_16_BIT)
    if form.samples == 4:
        notes.append(SlideNote.ALPHA_DROPPED)
    if (counts == 0).any():
        notes.append(SlideNote.SPARSE_TILES)
    if PHANTOM_TEXT_KEY in (page.description or ""):
        notes.append(SlideNote.PHANTOM)
    return tuple(notes)
