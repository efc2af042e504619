"""Conversion between the message for maps and NumPy arrays."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from dl4all.imaging.v1 import imaging_pb2
from services.common.errors import InvalidRequestError

_HALF_MAX: Final = 65504.0
_HALF_BYTES: Final = 2


def heatmap_message(values: NDArray[np.uint8]) -> imaging_pb2.SpatialMap:
    """A heatmap, uint8 (height, width), or with a third axis of channels."""
    return _message(values, imaging_pb2.VALUE_TYPE_UINT8)


def feature_map_message(values: NDArray[np.float32]) -> imaging_pb2.SpatialMap:
    """A feature map, float32 (height, width, channels), in half precision; values beyond its range are clipped to it."""
    return _message(np.clip(values, -_HALF_MAX, _HALF_MAX).astype("<f2"), imaging_pb2.VALUE_TYPE_FLOAT16)


def float_map_message(values: NDArray[np.float32]) -> imaging_pb2.SpatialMap:
    """A map of measured values, float32 (height, width), in single precision; NaN stays."""
    return _message(values.astype("<f4"), imaging_pb2.VALUE_TYPE_FLOAT32)


def is_feature_map(message: imaging_pb2.SpatialMap, channels: int) -> bool:
    """Whether a message is a whole feature map in half precision with this many channels."""
    return (
        message.value_type == imaging_pb2.VALUE_TYPE_FLOAT16
        and min(message.height, message.width) >= 1
        and message.channels == channels
        and len(message.values) == message.height * message.width * channels * _HALF_BYTES
    )


def read_feature_map(message: imaging_pb2.SpatialMap, channels: int, field: str) -> NDArray[np.float32]:
    """Read a feature map as float32 (height, width, channels).

    Args:
        message: the map.
        channels: how many it must have.
        field: name of the field that holds the map, for the error.

    Raises:
        InvalidRequestError: MAP_WRONG_SIZE: type, size or length do not fit; NOT_FINITE: a value is not a finite number.
    """
    if not is_feature_map(message, channels):
        raise InvalidRequestError("MAP_WRONG_SIZE", f"{field} takes a FLOAT16 map of height x width x {channels} values.", field=field)
    values = np.frombuffer(message.values, "<f2").reshape(message.height, message.width, channels).astype(np.float32)
    if not np.isfinite(values).all():
        raise InvalidRequestError("NOT_FINITE", f"The values of {field} must be finite numbers.", field=field)
    return values


def _message(values: NDArray[np.generic], value_type: imaging_pb2.ValueType.ValueType) -> imaging_pb2.SpatialMap:
    height, width, *channels = values.shape
    return imaging_pb2.SpatialMap(height=height, width=width, channels=channels[0] if channels else 1, value_type=value_type, values=values.tobytes())
