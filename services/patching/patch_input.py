"""Input of a network of patches: a square of the field, resized."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from services.patching.grid import Patch

Bytes = NDArray[np.uint8]


def patch_input(rgb: Bytes, patch: Patch, side: int) -> Bytes:
    """Cut a patch out of a field and resize it with bilinear interpolation and antialiasing, in training as in serving.

    Args:
        rgb: uint8 (H, W, 3), the field.
        patch: lies wholly inside.
        side: of the result in px.

    Returns:
        uint8 (side, side, 3).
    """
    square = rgb[patch.y : patch.y + patch.side, patch.x : patch.x + patch.side]
    return np.asarray(Image.fromarray(square).resize((side, side), Image.Resampling.BILINEAR), np.uint8)
