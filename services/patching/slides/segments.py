"""Decode one tile or strip of a TIFF: only to the size that the header says."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from services.common.errors import InvalidImageError
from services.patching.slides.jpeg import check_jpeg, jpeg_size
from services.patching.slides.jpeg2000 import check_jpeg2000, decode_jpeg2000, jpeg2000_size
from services.patching.slides.jpeg_colours import decode_jpeg
from services.patching.slides.slide import damaged

__all__ = ["Compression", "SegmentForm", "decode_segment", "jpeg2000_size", "jpeg_size"]
Bytes = NDArray[np.uint8]


class Compression(IntEnum):
    """Values of the TIFF tag that are read here."""

    NONE = 1
    LZW = 5
    JPEG = 7
    ADOBE_DEFLATE = 8
    PACKBITS = 32773
    DEFLATE = 32946
    APERIO_JPEG2000_YCBCR = 33003
    APERIO_JPEG2000_RGB = 33005
    JPEG2000 = 34712


@dataclass(frozen=True)
class SegmentForm:
    """How the pixels of tiles or strips are stored.

    Attributes:
        compression: how they are packed.
        samples: per pixel: 3, or 4 where an alpha channel follows.
        bits: per sample: 8 or 16.
        predictor: 1 (none) or 2 (horizontal differences).
        byte_order: ``<`` or ``>``.
        jpeg_tables: tables that JPEG tiles share; empty for none.
        jpeg_colours: colour space of the data in JPEG tiles with an alpha channel; None to take it from the tiles.
        labelled_ycbcr: whether the file labels its colours YCbCr; it counts where a tile does not say it.
    """

    compression: Compression
    samples: int
    bits: int
    predictor: int
    byte_order: str
    jpeg_tables: bytes = b""
    jpeg_colours: int | None = None
    labelled_ycbcr: bool = False


_FAILURES: Final = (ValueError, RuntimeError, TypeError, struct.error, zlib.error, MemoryError)


def decode_segment(data: bytes, width: int, height: int, form: SegmentForm) -> Bytes:
    """Decode a segment.

    Args:
        data: as stored.
        width, height: that the header says, px.
        form: how it is stored.

    Returns:
        uint8 (height, width, 3) RGB; 16-bit samples scaled, alpha dropped.

    Raises:
        InvalidImageError: SLIDE_DAMAGED: it cannot be decoded, or to another size; IMAGE_TRANSPARENT.
    """
    try:
        pixels = _decode(data, width, height, form)
    except _FAILURES as error:
        raise damaged("a tile cannot be decoded") from error
    if pixels.shape != (height, width, form.samples):
        raise damaged(f"a tile has {pixels.shape[1]} x {pixels.shape[0]} px where the header says {width} x {height}")
    if form.samples == 4 and pixels[..., 3].min() < np.iinfo(pixels.dtype).max:
        raise InvalidImageError("IMAGE_TRANSPARENT", "The slide is partly transparent; the background behind it is not known.")
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    return np.ascontiguousarray(pixels[..., :3])


def _decode(data: bytes, width: int, height: int, form: SegmentForm) -> NDArray[np.unsignedinteger[Any]]:
    match form.compression:
        case Compression.JPEG:
            check_jpeg(data, width, height, form.samples)
            if form.samples == 3:
                # Samples are numbered 1, 2, 3 in tiles of RGB too, where a file shares its tables.
                return decode_jpeg(data, form.labelled_ycbcr, tables=form.jpeg_tables, trust_numbers=False)
            tables = form.jpeg_tables or None
            return np.asarray(imagecodecs.jpeg_decode(data, tables=tables, colorspace=form.jpeg_colours, outcolorspace="RGB"))
        case Compression.JPEG2000 | Compression.APERIO_JPEG2000_RGB | Compression.APERIO_JPEG2000_YCBCR:
            check_jpeg2000(data, width, height, form.samples)
            return decode_jpeg2000(data, form.labelled_ycbcr or form.compression is Compression.APERIO_JPEG2000_YCBCR)
    size = width * height * form.samples * form.bits // 8
    raw = _unpacked(data, size, form.compression)
    if len(raw) != size:
        raise damaged("a tile holds fewer or more bytes than its size takes")
    samples = np.frombuffer(raw, np.dtype(f"{form.byte_order}u{form.bits // 8}")).reshape(height, width, form.samples)
    if form.predictor == 2:
        samples = np.cumsum(samples, axis=1, dtype=samples.dtype.newbyteorder("="))
    return samples.astype(samples.dtype.newbyteorder("="), copy=False)


def _unpacked(data: bytes, size: int, compression: Compression) -> bytes:
    """The bytes of a segment, at most one more than ``size``: longer data is never held."""
    match compression:
        case Compression.NONE:
            return data[: size + 1]
        case Compression.LZW:
            return bytes(imagecodecs.lzw_decode(data, out=size))
        case Compression.PACKBITS:
            return bytes(imagecodecs.packbits_decode(data, out=size))
        case _:
            return zlib.decompressobj().decompress(data, size + 1)
