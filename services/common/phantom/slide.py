"""A drawn slide with known truth: a mosaic of phantom fields in a tiled TIFF, of any size, never whole in memory."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import tifffile
from numpy.typing import NDArray

from services.common.image_codec import PHANTOM_TEXT_KEY
from services.common.phantom.field import smear_field
from services.common.phantom.options import PhantomOptions
from services.common.phantom.truth import PhantomCell

Bytes = NDArray[np.uint8]

FIELD_SIDE: Final = 1024
"""Side in px of the fields of the mosaic, and of the tiles of the file."""
DISTINCT_FIELDS: Final = 12
"""Different fields; each is mirrored in four ways."""
_MIRRORS: Final = ((False, False), (True, False), (False, True), (True, True))


@dataclass(frozen=True)
class SlideOptions:
    """Size, fields and file of a drawn slide.

    Attributes:
        width, height: of the slide in px.
        field: options of each field of the mosaic. Its size becomes ``FIELD_SIDE``, its light even, and it has no caption, so that no seams show.
        jpeg_quality: of the tiles, 1..100.
        microns_per_pixel: written into the file; None to leave it out.
    """

    width: int
    height: int
    field: PhantomOptions = dataclasses.field(default_factory=lambda: PhantomOptions(cells=6, cell_radius=30.0))
    jpeg_quality: int = 90
    microns_per_pixel: float | None = None


@dataclass(frozen=True)
class _MirroredField:
    """A field of the mosaic: its number and how it is mirrored."""

    field: int
    mirror: tuple[bool, bool]


class PhantomSlide:
    """A mosaic of phantom fields.

    Args:
        seed: the same seed and options give the same slide.
        options: of the slide.
    """

    def __init__(self, seed: int, options: SlideOptions) -> None:
        self._options = options
        field = replace(options.field, width=FIELD_SIDE, height=FIELD_SIDE, light=0.0, label=False)
        random = np.random.default_rng(seed)
        self._fields = [smear_field(int(random.integers(2**31)), field) for _ in range(DISTINCT_FIELDS)]
        rows, columns = -(-options.height // FIELD_SIDE), -(-options.width // FIELD_SIDE)
        chosen = random.integers(0, DISTINCT_FIELDS, (rows, columns)), random.integers(0, len(_MIRRORS), (rows, columns))
        self._mosaic = [[_MirroredField(int(f), _MIRRORS[m]) for f, m in zip(*row, strict=True)] for row in zip(*chosen, strict=True)]

    def write(self, path: Path) -> None:
        """Write it as a tiled TIFF in JPEG whose description says that it is a phantom."""
        options = self._options
        scale = options.microns_per_pixel
        with tifffile.TiffWriter(path, bigtiff=3 * options.width * options.height > 2**31) as file:
            file.write(
                self._tiles(),
                shape=(options.height, options.width, 3),
                dtype=np.uint8,
                tile=(FIELD_SIDE, FIELD_SIDE),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": options.jpeg_quality},
                description=json.dumps({PHANTOM_TEXT_KEY: "a drawing, not a patient"}),
                metadata=None,
                resolution=None if scale is None else (1e4 / scale, 1e4 / scale),
                resolutionunit="NONE" if scale is None else "CENTIMETER",
            )

    def cells(self) -> list[PhantomCell]:
        """Its true cells whose centre lies on the slide, in px of the slide."""
        return [cell for row, tiles in enumerate(self._mosaic) for column, tile in enumerate(tiles) for cell in self._cells_at(row, column, tile)]

    def _tiles(self) -> Iterator[Bytes]:
        for tiles in self._mosaic:
            yield from map(self._pixels, tiles)

    def _pixels(self, tile: _MirroredField) -> Bytes:
        image = self._fields[tile.field].image
        across, down = tile.mirror
        return np.ascontiguousarray(image[:: -1 if down else 1, :: -1 if across else 1])

    def _cells_at(self, row: int, column: int, tile: _MirroredField) -> Iterator[PhantomCell]:
        across, down = tile.mirror
        for cell in self._fields[tile.field].cells:
            x = FIELD_SIDE - 1 - cell.center_x if across else cell.center_x
            y = FIELD_SIDE - 1 - cell.center_y if down else cell.center_y
            x, y = x + column * FIELD_SIDE, y + row * FIELD_SIDE
            if x < self._options.width and y < self._options.height:
                yield replace(cell, center_x=x, center_y=y)
