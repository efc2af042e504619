"""Frames of DICOM in run lengths: decoded plane by plane, never to more bytes than the header says."""

from __future__ import annotations

import struct
from typing import Final

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from services.patching.slides.slide import damaged

_HEAD: Final = struct.Struct("<16I")
_PLANES: Final = 3


def decode_rle(frame: bytes, width: int, height: int) -> NDArray[np.uint8]:
    """Decode a frame in RGB of 8 bit.

    Args:
        frame: as stored: a head with the offsets of three planes, then the planes.
        width, height: px, as the header of the slide says.

    Returns:
        uint8 (height, width, 3).

    Raises:
        InvalidImageError: SLIDE_DAMAGED: it has other planes, or a plane unpacks to another size.
    """
    if len(frame) < _HEAD.size:
        raise damaged("a tile is not in the run lengths that the header says")
    count, *offsets = _HEAD.unpack_from(frame)
    ends = [*offsets[1:_PLANES], len(frame)]
    if count != _PLANES or offsets[0] < _HEAD.size or any(a >= b for a, b in zip(offsets, ends, strict=False)) or offsets[2] >= len(frame):
        raise damaged("a tile has other planes than the header says")
    size = width * height
    try:
        planes = [bytes(imagecodecs.packbits_decode(frame[a:b], out=size)) for a, b in zip(offsets, ends, strict=False)]
    except (ValueError, RuntimeError) as error:
        raise damaged("a tile cannot be decoded") from error
    if any(len(plane) != size for plane in planes):
        raise damaged("a tile holds fewer or more bytes than its size takes")
    return np.stack([np.frombuffer(plane, np.uint8).reshape(height, width) for plane in planes], axis=-1)
