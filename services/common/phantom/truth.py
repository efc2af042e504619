"""A drawn phantom with its true cells, and the PNG file that carries both."""

from __future__ import annotations

import dataclasses
import io
import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from services.common.image_codec import PHANTOM_TEXT_KEY
from services.common.phantom.options import CellKind, PhantomOptions


@dataclass(frozen=True)
class PhantomCell:
    """Truth of one white cell, measured from its drawn mask before the optical blur.

    Attributes:
        center_x: Column of the mask centroid, pixels.
        center_y: Row of the mask centroid, pixels.
        radius: sqrt(area / pi) of the whole cell, cytoplasm included, pixels.
        kind: Kind of the cell.
        nucleus_radius: sqrt(area / pi) of the nucleus, all lobes together, pixels.
    """

    center_x: float
    center_y: float
    radius: float
    kind: CellKind
    nucleus_radius: float


@dataclass(frozen=True, eq=False)
class Phantom:
    """A drawn image and its truth; the arrays are read-only.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        cells: White cells, from top to bottom.
        mask: (H, W) uint16, 0 for background and i + 1 inside ``cells[i]``.
        seed: Seed of the drawing.
        options: Options of the drawing.
    """

    image: NDArray[np.uint8]
    cells: tuple[PhantomCell, ...]
    mask: NDArray[np.uint16]
    seed: int
    options: PhantomOptions


def encode_png(phantom: Phantom) -> bytes:
    """Encode a phantom as PNG with its truth in a text chunk.

    The chunk has the key ``PHANTOM_TEXT_KEY`` and holds a JSON object with the members ``seed``,
    ``options`` and ``cells``, the last two with the fields of their dataclasses.

    Args:
        phantom: The phantom to encode.

    Returns:
        The PNG file, lossless 8-bit RGB.
    """
    truth = {
        "seed": phantom.seed,
        "options": dataclasses.asdict(phantom.options),
        "cells": [dataclasses.asdict(cell) for cell in phantom.cells],
    }
    info = PngInfo()
    info.add_text(PHANTOM_TEXT_KEY, json.dumps(truth))
    buffer = io.BytesIO()
    Image.fromarray(phantom.image).save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()
