"""Between protobuf bytes and NumPy arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from services.common.errors import InvalidRequestError

_HALF_MAX = 65504.0


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


def patches_from_bytes(data: bytes, rows: int, columns: int, dimension: int, field: str) -> NDArray[np.float32]:
    """Read half-precision patch embeddings as float32 (rows, columns, dimension).

    Raises:
        InvalidRequestError: the length does not fit, or a value is not finite.
    """
    if rows < 1 or columns < 1 or len(data) != rows * columns * dimension * 2:
        raise InvalidRequestError(
            "PATCHES_WRONG_SIZE", f"Patch embeddings must have rows x columns x {dimension} half-precision values.", field=field
        )
    values = np.frombuffer(data, "<f2").reshape(rows, columns, dimension).astype(np.float32)
    if not np.isfinite(values).all():
        raise InvalidRequestError("NOT_FINITE", "Patch embeddings must be finite numbers.", field=field)
    return values


def patches_to_bytes(patches: NDArray[np.float32]) -> bytes:
    """Write patch embeddings (rows, columns, dimension) in half precision, little-endian."""
    return np.clip(patches, -_HALF_MAX, _HALF_MAX).astype("<f2").tobytes()
