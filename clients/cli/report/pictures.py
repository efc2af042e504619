"""Pictures of the report: upright fields, crops, similarity overlays, and reference images that are held."""

from __future__ import annotations

import base64
import hashlib
import io
import math
import warnings
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from dl4all.imaging.v1 import imaging_pb2
from dl4all.retrieval.v1 import neighbour_pb2

Bytes = NDArray[np.uint8]

FIELD_SIDE: Final = 1600
"""Longest side of a field in the report, px."""
MAP_OPACITY: Final = 0.35
REGISTERED_HALF_SIDE: Final = 256.0 / 85.0 / 2.0
"""Half the side of a registered square in radii of its cell."""

_SURROUNDINGS_RADII: Final = 5.0
_SURROUNDINGS_SIDE: Final = 240
_JPEG_QUALITY: Final = 85
_MAX_REFERENCE_BYTES: Final = 64 * 1024 * 1024
_MAX_REACH: Final = 4.0
_COLOURS: Final = np.array(
    [
        (68, 1, 84),
        (71, 39, 119),
        (62, 73, 137),
        (48, 103, 141),
        (37, 130, 142),
        (30, 157, 136),
        (53, 183, 120),
        (109, 205, 88),
        (180, 221, 43),
        (253, 231, 36),
    ],
    np.float32,
)
"""Viridis, evenly spaced, dark to light."""


def open_upright(encoded: bytes) -> Image.Image | None:
    """Decode an image to upright RGB; None where that fails."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(encoded)) as image:
                return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError):
        return None


def jpeg_uri(image: Image.Image) -> str:
    """A JPEG as data URI."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def png_uri(image: Image.Image) -> str:
    """A PNG as data URI."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def fit_field(image: Image.Image) -> Image.Image:
    """Reduce a field so that its longest side has at most ``FIELD_SIDE`` px."""
    scale = FIELD_SIDE / max(image.size)
    if scale >= 1.0:
        return image
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.LANCZOS, reducing_gap=3.0)


def registered_crop(pixels: bytes, side: int) -> Image.Image | None:
    """The registered pixels of a cell; None where they are absent or have another size than they say."""
    if side <= 0 or len(pixels) != side * side * 3:
        return None
    return Image.frombytes("RGB", (side, side), pixels)


def surroundings(image: Image.Image, cell: imaging_pb2.Cell) -> tuple[Image.Image, tuple[float, float, float]] | None:
    """Cut a cell with its surroundings.

    Returns:
        The picture and the cell's centre and radius in it, px; None where the cell does not lie in the image.
    """
    if not _lies_in(image, cell.center_x, cell.center_y, cell.radius):
        return None
    side = min(2 * _SURROUNDINGS_RADII * cell.radius, *image.size)
    left = min(max(cell.center_x + 0.5 - side / 2, 0.0), image.width - side)
    top = min(max(cell.center_y + 0.5 - side / 2, 0.0), image.height - side)
    picture = image.resize((_SURROUNDINGS_SIDE,) * 2, Image.Resampling.BICUBIC, box=(left, top, left + side, top + side), reducing_gap=3.0)
    scale = _SURROUNDINGS_SIDE / side
    return picture, ((cell.center_x + 0.5 - left) * scale, (cell.center_y + 0.5 - top) * scale, cell.radius * scale)


def register(image: Image.Image, center_x: float, center_y: float, radius: float, side: int) -> Image.Image | None:
    """Cut the registered square of a cell; what lies beyond the border is reflected.

    Args:
        image: upright RGB image.
        center_x, center_y: centre of the cell, px of the image, pixel centres at integers.
        radius: radius of the whole cell, px.
        side: side of the result, px.

    Returns:
        The square; None where the cell does not lie in the image.
    """
    half = REGISTERED_HALF_SIDE * radius
    if side <= 0 or not _lies_in(image, center_x, center_y, radius) or half > _MAX_REACH * max(image.size):
        return None
    left, top = math.floor(center_x + 0.5 - half) - 1, math.floor(center_y + 0.5 - half) - 1
    rows = _reflected(np.arange(top, math.ceil(center_y + 0.5 + half) + 1), image.height)
    columns = _reflected(np.arange(left, math.ceil(center_x + 0.5 + half) + 1), image.width)
    square = Image.fromarray(np.ascontiguousarray(np.asarray(image)[np.ix_(rows, columns)]))
    x, y = center_x + 0.5 - left, center_y + 0.5 - top
    return square.resize((side, side), Image.Resampling.BICUBIC, box=(x - half, y - half, x + half, y + half))


def overlay(image: Image.Image, heatmap: imaging_pb2.SpatialMap) -> Image.Image | None:
    """Lay a similarity map over a square picture; None where the map is absent or has another size than it says."""
    if heatmap.width <= 0 or heatmap.height <= 0 or len(heatmap.values) != heatmap.width * heatmap.height:
        return None
    small = Image.frombytes("L", (heatmap.width, heatmap.height), heatmap.values)
    values = np.asarray(small.resize(image.size, Image.Resampling.BILINEAR), np.uint8)
    return Image.blend(image, Image.fromarray(colour(values)), MAP_OPACITY)


def place_pictures(similarities: neighbour_pb2.PlaceSimilarities) -> tuple[str, ...]:
    """Small pictures, as data URIs: for each place of the query, row by row, where the neighbour resembles it; empty without sound maps."""
    height, width = similarities.neighbour_height, similarities.neighbour_width
    shape = (similarities.map.height, similarities.map.width, height, width)
    if min(shape) < 1 or len(similarities.map.values) != int(np.prod(shape)):
        return ()
    values = np.frombuffer(similarities.map.values, np.uint8).reshape(-1, height, width)
    return tuple(png_uri(Image.fromarray(colour(place))) for place in values)


def colour(values: Bytes) -> Bytes:
    """Colours uint8 (..., 3) of values 0..255: viridis."""
    position = values.astype(np.float32) * ((len(_COLOURS) - 1) / 255.0)
    below = np.minimum(position.astype(np.intp), len(_COLOURS) - 2)
    share = (position - below)[..., np.newaxis]
    return np.asarray(np.rint(_COLOURS[below] * (1.0 - share) + _COLOURS[below + 1] * share), np.uint8)


def colour_scale() -> str:
    """The colour map from none to highest, as data URI."""
    return png_uri(Image.fromarray(np.repeat(colour(np.arange(256, dtype=np.uint8))[np.newaxis], 8, axis=0)))


def held_reference(references: Path | None, neighbour: neighbour_pb2.Neighbour) -> Image.Image | None:
    """The image of a known cell, if the folder holds that very file.

    Args:
        references: folder of reference images; None where there is none.
        neighbour: the known cell.

    Returns:
        The upright image; None unless the file lies inside the folder and its SHA-256 is the neighbour's.
    """
    if references is None or not neighbour.reference_id or not neighbour.image_sha256:
        return None
    encoded = _read_inside(references, neighbour.reference_id)
    if encoded is None or hashlib.sha256(encoded).hexdigest() != neighbour.image_sha256.lower():
        return None
    return open_upright(encoded)


def _read_inside(folder: Path, name: str) -> bytes | None:
    try:
        root = folder.resolve()
        path = (root / name).resolve()
        if not path.is_relative_to(root) or not path.is_file() or path.stat().st_size > _MAX_REFERENCE_BYTES:
            return None
        return path.read_bytes()
    except (OSError, ValueError):
        return None


def _lies_in(image: Image.Image, center_x: float, center_y: float, radius: float) -> bool:
    if not all(map(math.isfinite, (center_x, center_y, radius))) or radius <= 0:
        return False
    return -0.5 <= center_x <= image.width - 0.5 and -0.5 <= center_y <= image.height - 0.5


def _reflected(indices: NDArray[np.int_], length: int) -> NDArray[np.int_]:
    folded = np.mod(indices, 2 * length)
    return np.asarray(np.minimum(folded, 2 * length - 1 - folded), np.int_)
