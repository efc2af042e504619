"""The pixels of an image that Pillow has opened, and what its decoder buffers; in little more memory than both need."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from services.common.errors import InvalidImageError
from services.common.image_structure import START_OF_SCAN, Pieces, components_of_first_scan, count_scans, count_scans_of_pieces

Bytes = NDArray[np.uint8]

MAX_SCANS: Final = 256
"""Scans of a JPEG, or of a piece of a TIFF on average; cameras store 1, progressive files about 10."""
MAX_SCANNED_PIXELS: Final = 1_000_000_000
"""Scans times pixels of a progressive JPEG: 10 scans of the largest image."""
MAX_PADDED_PIXELS: Final = 200_000_000
"""Pixels of all tiles of a TIFF, those beyond its border among them: twice the largest image."""
_USUAL_SCANS: Final = 12
_OPAQUE: Final = 255
_STRIP_PIXELS: Final = 1 << 17
_SMALL: Final = 1 << 22
"""Pixels of an image that is copied at once, which is faster."""
_COEFFICIENT: Final = 2
_COMPONENTS: Final = 3
_UNPACKED: Final = 4
"""Least bytes of a pixel of an unpacked piece."""
_OLD_JPEG, _JPEG = "tiff_jpeg", "jpeg"
_ROWS_PER_STRIP, _TILE_WIDTH, _TILE_HEIGHT = 278, 322, 323
_STRIPS, _TILES = (273, 279), (324, 325)
_BITS_PER_SAMPLE, _SAMPLES_PER_PIXEL = 258, 277


def upright_pixels(image: Image.Image) -> tuple[Bytes, bool]:
    """Decode an image of mode RGB, RGBA or RGBX, turn it as its EXIF data say and drop its alpha. Pillow's own copy is freed.

    Args:
        image: opened; it is closed afterwards.

    Returns:
        uint8 (H, W, 3) RGB, and whether a pixel is not opaque.
    """
    image.load()
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)  # Pillow has turned a TIFF by now
    width, height = image.size
    if width * height <= _SMALL and image.mode == "RGB" and orientation not in range(2, 9):
        pixels = np.asarray(image, np.uint8)
        image.close()
        return pixels, False
    pixels = np.empty((width, height, 3) if orientation in (5, 6, 7, 8) else (height, width, 3), np.uint8)
    as_stored = _as_stored(pixels, orientation)
    lowest, highest = _OPAQUE, 0
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        strip = np.asarray(image.crop((0, top, width, min(height, top + rows))), np.uint8)
        as_stored[top : top + rows] = strip[..., :3]
        if image.mode == "RGBA":
            lowest, highest = min(lowest, int(strip[..., 3].min())), max(highest, int(strip[..., 3].max()))
    is_unused = image.format == "BMP" and highest == 0  # programs that write no alpha leave it 0; Windows shows such a bitmap
    image.close()
    return pixels, lowest < _OPAQUE and not is_unused


def turned(stored: Bytes, orientation: int) -> Bytes:
    """An image as its EXIF orientation says, uint8 (H, W, 3), contiguous."""
    if orientation not in range(2, 9):
        return stored
    upright = np.empty((stored.shape[1], stored.shape[0], 3) if orientation in (5, 6, 7, 8) else stored.shape, np.uint8)
    _as_stored(upright, orientation)[:] = stored
    return upright


def _as_stored(upright: Bytes, orientation: int) -> Bytes:
    """A view of the upright image in which rows and columns lie as they are stored."""
    turned = upright.transpose(1, 0, 2) if orientation in (5, 6, 7, 8) else upright
    return turned[:: -1 if orientation in (3, 4, 6, 7) else 1, :: -1 if orientation in (2, 3, 7, 8) else 1]


def buffered_bytes(image: Image.Image, encoded: bytes) -> int:
    """Bytes that the decoder holds beside the pixels.

    Args:
        image: opened, not decoded.
        encoded: its file.

    Raises:
        InvalidImageError: IMAGE_TOO_LARGE: its scans or tiles make it far larger than its pixels are; IMAGE_TRUNCATED.
    """
    if image.format == "JPEG":
        return _buffered_by_jpeg(image, encoded)
    return _buffered_by_tiff(image, encoded) if image.format == "TIFF" else 0


def _buffered_by_jpeg(image: Image.Image, encoded: bytes) -> int:
    """Coefficients of the whole image, except where one scan holds all of it in order."""
    pixels = image.width * image.height
    scans = encoded.count(START_OF_SCAN)
    if scans > 1:
        scans = count_scans(encoded)
    _check_scans(scans, 1, pixels)
    if scans == 1 and "progressive" not in image.info and components_of_first_scan(encoded) >= _COMPONENTS:
        return 0
    return _COEFFICIENT * _COMPONENTS * _padded(image.width, 32) * _padded(image.height, 32)


def _buffered_by_tiff(image: Any, encoded: bytes) -> int:
    """One strip or tile, which is unpacked whole, and its coefficients where it is a JPEG."""
    tags, compression = image.tag_v2, image.info.get("compression")
    width, height = (int(side) for side in image._tile_size)
    is_tiled = _TILES[0] in tags
    piece_width = int(tags.get(_TILE_WIDTH, width)) if is_tiled else width
    piece_height = int(tags.get(_TILE_HEIGHT, height)) if is_tiled else min(height, int(tags.get(_ROWS_PER_STRIP, height)))
    across, down = math.ceil(width / piece_width), math.ceil(height / piece_height)
    if across * piece_width * down * piece_height > MAX_PADDED_PIXELS:
        raise InvalidImageError("IMAGE_TOO_LARGE", f"The tiles of the TIFF have {piece_width} x {piece_height} px; save it in smaller ones.")
    bits = tags.get(_BITS_PER_SAMPLE, (8,))
    if compression == "raw" and max(bits if isinstance(bits, tuple) else (bits,)) <= 8:
        return 0
    sample_bytes: int = math.ceil(max(bits if isinstance(bits, tuple) else (bits,)) / 8) * max(3, int(tags.get(_SAMPLES_PER_PIXEL, 3)))
    pieces = Pieces(_ranges(tags, _TILES if is_tiled else _STRIPS, len(encoded)), piece_width * piece_height)
    if compression == _OLD_JPEG:
        _check_scans(encoded.count(START_OF_SCAN), 1, width * height)
    elif compression == _JPEG:
        _check_scans(count_scans_of_pieces(encoded, pieces), across * down, pieces.pixels)
    coefficients = _COEFFICIENT * _COMPONENTS if compression in (_JPEG, _OLD_JPEG) else 0
    return pieces.pixels * (max(_UNPACKED, sample_bytes) + coefficients)


def _ranges(tags: Any, names: tuple[int, int], size: int) -> list[tuple[int, int]]:
    offsets, sizes = (values if isinstance(values, tuple) else (values,) for values in (tags.get(name, ()) for name in names))
    known = [int(s) for s in sizes[: len(offsets)]]
    return list(zip(map(int, offsets), known + [size] * (len(offsets) - len(known)), strict=True))


def _check_scans(scans: int, pieces: int, pixels: int) -> None:
    """Refuse JPEG data of so many scans that decoding it would take a worker for long: each scan touches all pixels of its piece."""
    if scans > MAX_SCANS * pieces or (scans > _USUAL_SCANS * pieces and scans * pixels > MAX_SCANNED_PIXELS):
        raise InvalidImageError("IMAGE_TOO_LARGE", f"The JPEG stores its pixels in {scans} scans, far more than any camera does; save it again.")


def _padded(side: int, block: int) -> int:
    return math.ceil(side / block) * block
