"""A slide: windows of any size out of an image that is stored as tiles or strips and held in memory only in part."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from services.common.errors import InvalidImageError
from services.common.image_codec import MIN_SIDE

Bytes = NDArray[np.uint8]

MAX_SIDE: Final = 1_000_000
"""Longest side of a slide in px."""
MAX_PIXELS: Final = 50_000_000_000
"""Largest area of a slide: five times that of a whole slide at forty-fold magnification."""
MAX_TILE_BYTES: Final = 64 * 1024 * 1024
"""Largest decoded tile or strip; a slide in larger pieces cannot be read in part."""
PIXELS_A_BYTE: Final = 2_000
"""Pixels that a slide may have for each byte of its file. Whole slides have 5 to 30. The emptiest known have 500: most of them is glass that the file
leaves out or packs tightly. Four times that is allowed."""
FREE_PIXELS: Final = 100_000_000
"""Pixels that a slide may have besides, however small its file is: as many as an image. A blank picture packs a thousandfold and harms nobody."""
SMALL_TILE: Final = 256
MAX_SMALL_TILES: Final = 65_536
"""Tiles of fewer than ``SMALL_TILE`` px that a slide may have: reading one takes as long as that of a large one."""
MAX_READ_FACTOR: Final = 32
FREE_READ_PIXELS: Final = 1_000_000_000
"""A slide is decoded at most so many times over, and so many pixels besides. A slide in tiles is decoded 2 to 4 times, in long strips 10 times."""
TILE_OVERHEAD: Final = 512
"""Bytes that a kept tile takes besides its pixels."""
STORED_FACTOR: Final = 2
STORED_MARGIN: Final = 1024 * 1024
"""A stored tile has at most so many times the bytes of its pixels, and so many more for tables and profiles."""
CACHE_BYTES: Final = 128 * 1024 * 1024
"""Decoded tiles that a slide keeps: windows overlap, and a row of windows shares the strips that it crosses."""
MICRONS_RANGE: Final = (0.02, 10.0)
"""Plausible micrometres per pixel of a microscope; files carry other numbers where nobody set them."""


class SlideNote(StrEnum):
    """Notes on an accepted slide."""

    SCALED_FROM_16_BIT = "SCALED_FROM_16_BIT"
    ALPHA_DROPPED = "ALPHA_DROPPED"
    SPARSE_TILES = "SPARSE_TILES"
    COLOURS_DOUBTED = "COLOURS_DOUBTED"
    PHANTOM = "PHANTOM"


@dataclass(frozen=True)
class SlideFacts:
    """Facts in the header of a slide.

    Attributes:
        width, height: of the full resolution in px.
        tile_width, tile_height: of the pieces that it is stored in, px.
        format: of the file, for people.
        levels: resolutions that the file holds; the full one is read.
        microns_per_pixel: if the file says it.
        notes: notes on the slide.
    """

    width: int
    height: int
    tile_width: int
    tile_height: int
    format: str
    levels: int
    microns_per_pixel: float | None
    notes: tuple[SlideNote, ...]


class TileSource(Protocol):
    """The file behind a slide."""

    facts: SlideFacts

    def tile(self, row: int, column: int) -> Bytes:
        """Decode one tile: uint8 (tile_height, tile_width, 3); at the right and lower border it may be cut to the image.

        Raises:
            InvalidImageError: it is damaged, or not of the size that the header says.
        """

    def close(self) -> None:
        """Close the file."""


class Slide:
    """Reads windows of a source. Not for use by several threads at once.

    Args:
        source: the file, open.
        cache_bytes: decoded tiles that are kept.

    Raises:
        InvalidImageError: the header names sizes that make no sense.
    """

    def __init__(self, source: TileSource, cache_bytes: int = CACHE_BYTES) -> None:
        check_sizes(source.facts)
        self.facts = source.facts
        self._source = source
        self._cache: OrderedDict[tuple[int, int], Bytes] = OrderedDict()
        self._cached = self._decoded = 0
        self._cache_bytes = cache_bytes

    def read(self, x: int, y: int, width: int, height: int) -> Bytes:
        """Read a window.

        Args:
            x, y: its first pixel.
            width, height: its size; it lies inside the slide.

        Returns:
            uint8 (height, width, 3) RGB.

        Raises:
            InvalidImageError: a tile is damaged.
            ValueError: the window leaves the slide.
        """
        facts = self.facts
        if not (x >= 0 and y >= 0 and width > 0 and height > 0 and x + width <= facts.width and y + height <= facts.height):
            raise ValueError(f"window {width} x {height} at ({x}, {y}) leaves the slide of {facts.width} x {facts.height} px")
        window = np.empty((height, width, 3), np.uint8)
        for row in range(y // facts.tile_height, (y + height - 1) // facts.tile_height + 1):
            for column in range(x // facts.tile_width, (x + width - 1) // facts.tile_width + 1):
                tile = self._tile(row, column)
                top, left = row * facts.tile_height, column * facts.tile_width
                y0, y1 = max(y, top), min(y + height, top + facts.tile_height)
                x0, x1 = max(x, left), min(x + width, left + facts.tile_width)
                window[y0 - y : y1 - y, x0 - x : x1 - x] = tile[y0 - top : y1 - top, x0 - left : x1 - left]
        return window

    def close(self) -> None:
        """Close the file and drop the kept tiles."""
        self._cache.clear()
        self._source.close()

    def _tile(self, row: int, column: int) -> Bytes:
        key = (row, column)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        self._count(row)
        tile = self._source.tile(row, column)
        self._check_tile(tile, row, column)
        self._cache[key] = tile
        self._cached += tile.nbytes + TILE_OVERHEAD
        while self._cached > self._cache_bytes and len(self._cache) > 1:
            self._cached -= self._cache.popitem(last=False)[1].nbytes + TILE_OVERHEAD
        return tile

    def _count(self, row: int) -> None:
        """Count a tile before it is decoded; pieces that are far longer than windows would be decoded anew for each window that they cross."""
        facts = self.facts
        self._decoded += facts.tile_width * min(facts.tile_height, facts.height - row * facts.tile_height)
        if self._decoded > MAX_READ_FACTOR * facts.width * facts.height + FREE_READ_PIXELS:
            raise InvalidImageError(
                "SLIDE_NOT_TILED", "The slide is stored in pieces so long that each would be decoded many times over; save it as a tiled TIFF."
            )

    def _check_tile(self, tile: Bytes, row: int, column: int) -> None:
        facts = self.facts
        height = min(facts.tile_height, facts.height - row * facts.tile_height)
        width = min(facts.tile_width, facts.width - column * facts.tile_width)
        if tile.ndim != 3 or tile.shape[0] < height or tile.shape[1] < width or tile.shape[2] != 3:
            raise damaged(f"the tile in row {row}, column {column} is smaller than the header says")


def check_sizes(facts: SlideFacts) -> None:
    """Refuse a header whose sizes make no sense, or whose pieces are too large to be read one at a time.

    Raises:
        InvalidImageError: SLIDE_TOO_SMALL, SLIDE_TOO_LARGE, SLIDE_DAMAGED or SLIDE_NOT_TILED.
    """
    if min(facts.width, facts.height) < MIN_SIDE:
        raise InvalidImageError("SLIDE_TOO_SMALL", f"The slide is {facts.width} x {facts.height} px; both sides must have at least {MIN_SIDE} px.")
    if max(facts.width, facts.height) > MAX_SIDE:
        raise InvalidImageError("SLIDE_TOO_LARGE", f"The slide is {facts.width} x {facts.height} px; a side has at most {MAX_SIDE} px.")
    if facts.width * facts.height > MAX_PIXELS:
        raise InvalidImageError(
            "SLIDE_TOO_LARGE", f"The slide is {facts.width} x {facts.height} px; at most {MAX_PIXELS // 10**9} gigapixels are read."
        )
    if min(facts.tile_width, facts.tile_height) < 1:
        raise damaged("its tiles have no size")
    area = facts.tile_width * facts.tile_height
    if area < SMALL_TILE and -(-facts.width // facts.tile_width) * -(-facts.height // facts.tile_height) > MAX_SMALL_TILES:
        raise damaged("its tiles are far smaller than those of a slide")
    if 3 * area > MAX_TILE_BYTES:
        raise InvalidImageError(
            "SLIDE_NOT_TILED",
            f"The slide is stored in pieces of {facts.tile_width} x {facts.tile_height} px, too large to be read one at a time; "
            "save it as a tiled TIFF.",
        )


def check_density(facts: SlideFacts, stored: int) -> None:
    """Refuse a slide of far more pixels than its bytes can hold: it is searched window by window, for hours, whatever it shows.

    Args:
        facts: of the slide.
        stored: bytes of its files.

    Raises:
        InvalidImageError: SLIDE_TOO_LARGE.
    """
    pixels = facts.width * facts.height
    if pixels > FREE_PIXELS + PIXELS_A_BYTE * stored:
        raise InvalidImageError("SLIDE_TOO_LARGE", f"The slide says that it has {pixels} px, far more than {stored} bytes can hold.")


def damaged(what: str) -> InvalidImageError:
    """The error of a slide that is cut short or contradicts itself."""
    return InvalidImageError("SLIDE_DAMAGED", f"The slide ends early or is damaged: {what}.")


def plausible_microns(value: float | None) -> float | None:
    """Micrometres per pixel if they are plausible; else None."""
    low, high = MICRONS_RANGE
    return value if value is not None and low <= value <= high else None
