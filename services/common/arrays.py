"""Pixels between protobuf bytes and NumPy arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from services.common.errors import InvalidRequestError


def pixels_from_bytes(data: bytes, height: int, width: int, field: str) -> NDArray[np.uint8]:
    """View bytes as uint8 (height, width, 3).

    Raises:
        InvalidRequestError: the length is not height x width x 3 or a side is not positive.
    """
    if height < 1 or width < 1 or len(data) != height * width * 3:
        raise InvalidRequestError(
            "PIXELS_WRONG_SIZE", f"Pixels must have height x width x 3 bytes, got {len(data)} for {height} x {width}.", field=field
        )
    return np.frombuffer(data, np.uint8).reshape(height, width, 3)
