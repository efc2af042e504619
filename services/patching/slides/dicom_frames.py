"""Decode one frame of a DICOM file to RGB: only to the size that the header says, in the colours that its stream stores."""

from __future__ import annotations

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from services.common.errors import InvalidImageError
from services.patching.slides.dicom_header import DicomHeader, Syntax
from services.patching.slides.jpeg import check_jpeg
from services.patching.slides.jpeg2000 import check_jpeg2000, decode_jpeg2000
from services.patching.slides.jpeg_colours import decode_jpeg
from services.patching.slides.rle import decode_rle
from services.patching.slides.slide import STORED_FACTOR, STORED_MARGIN, damaged
from services.patching.slides.ycbcr import rgb_of_ycbcr

Bytes = NDArray[np.uint8]
_OF_JPEG_2000 = ("YBR_ICT", "YBR_RCT")
"""Labels of the transforms within JPEG 2000: a stream of another kind that carries one was unpacked before, and its colours with it."""


def check_pixels(header: DicomHeader) -> None:
    """Refuse pixels that are not RGB of 8 bit, or stored in a way that is not read.

    Raises:
        InvalidImageError: SLIDE_NOT_RGB or SLIDE_UNSUPPORTED.
    """
    samples, bits, label = header.number("samples", 1), header.number("stored", header.number("allocated")), header.colours
    if samples != 3 or not (label == "RGB" or label.startswith("YBR_")):
        shown = f" ({label[:16]})" if label else ""
        raise InvalidImageError("SLIDE_NOT_RGB", f"The slide is not in RGB colour{shown}; stains can only be told in colour.")
    if bits != 8 or header.number("allocated", 8) != 8 or header.number("signed"):
        shown = f"signed numbers of {bits} bit" if header.number("signed") else f"{bits} bit in {header.number('allocated', 8)}"
        raise InvalidImageError("SLIDE_NOT_RGB", f"The slide has {shown} a sample; only RGB colour of 8 bit is read from DICOM.")
    if not (header.syntax.is_native or header.syntax.is_rle or header.syntax.is_jpeg_ls):
        return
    is_reduced = header.syntax.is_native and header.colours == "YBR_FULL_422" and _is_reduced(header)
    if label.startswith("YBR_PARTIAL") or is_reduced:
        raise InvalidImageError("SLIDE_UNSUPPORTED", f"The slide stores {label} colours without JPEG; save it in RGB.")


def decode_frame(encoded: bytes, width: int, height: int, syntax: Syntax, label: str) -> Bytes:
    """Decode a frame whose stream has told that it is of the size that the header says.

    Args:
        encoded: as stored.
        width, height: px, as the header says.
        syntax: how it is packed.
        label: of the colours in the header; it counts where the stream does not say them.

    Returns:
        uint8 (height, width, 3) RGB.

    Raises:
        InvalidImageError: SLIDE_DAMAGED: it is of another size or kind; SLIDE_UNSUPPORTED: a kind of JPEG 2000 that is not read.
        Exception: of the decoder, where the stream is damaged.
    """
    if len(encoded) > STORED_FACTOR * 3 * width * height + STORED_MARGIN:
        raise damaged("a tile takes more bytes than its pixels could")
    labelled = label.startswith("YBR_")
    if syntax.is_jpeg:
        check_jpeg(encoded, width, height, 3)
        return np.asarray(decode_jpeg(encoded, labelled))
    if not (syntax.is_jpeg_ls or syntax.is_native or syntax.is_rle):
        check_jpeg2000(encoded, width, height, 3)
        return np.asarray(decode_jpeg2000(encoded, labelled))
    if syntax.is_jpeg_ls:
        check_jpeg(encoded, width, height, 3, is_ls=True)
        pixels = np.asarray(imagecodecs.jpegls_decode(encoded))
    elif syntax.is_rle:
        pixels = decode_rle(encoded, width, height)
    elif len(encoded) != 3 * width * height:
        raise damaged("a tile holds fewer or more bytes than its size takes")
    else:
        pixels = np.frombuffer(encoded, np.uint8).reshape(height, width, 3)
    return as_rgb(pixels, label)


def as_rgb(pixels: Bytes, label: str) -> Bytes:
    """Pixels of a stream that says nothing of its colours, by their label."""
    return np.asarray(rgb_of_ycbcr(pixels)) if label.startswith("YBR_") and label not in _OF_JPEG_2000 else pixels


def _is_reduced(header: DicomHeader) -> bool:
    """Whether colours without JPEG are stored for every other pixel only: two bytes a pixel."""
    pixels = header.frames * header.columns * header.rows
    return header.pixels_bytes is not None and 2 * pixels <= header.pixels_bytes < 3 * pixels
