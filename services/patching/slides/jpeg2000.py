"""What a JPEG 2000 codestream says of itself, bare or in a file format, read without decoding: its size, samples and divisions."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from services.common.errors import InvalidImageError
from services.patching.slides.slide import damaged
from services.patching.slides.ycbcr import rgb_of_ycbcr

_JP2_SIGNATURE: Final = b"\0\0\0\x0cjP  \r\n\x87\n"
_START: Final = b"\xff\x4f\xff\x51"
_STEPS: Final = (((1, 1), (2, 1), (2, 1)), ((1, 1), (2, 2), (2, 2)))
"""Steps between the samples of Y, Cb and Cr, in px, where the colours are stored at reduced size: 4:2:2 and 4:2:0."""
_YCC: Final = b"colr\1\0\0\0\0\0\x12"
"""The box of a file format that says that its colours are YCbCr."""
_COD, _COC, _SOT, _SOD, _END = 0xFF52, 0xFF53, 0xFF90, 0xFF93, 0xFFD9
_KNOWN: Final = frozenset({0xFF50, *range(0xFF51, 0xFF54), *range(0xFF55, 0xFF66), *range(0xFF74, 0xFF79), _SOT})
"""Markers of segments with a length. A decoder looks for the next marker behind one that it does not know."""
MAX_BITS: Final = 16
MAX_DIVISIONS: Final = 1024
"""Tiles of its own that a codestream may have: a decoder keeps 9 KB for each, however small it is. Writers of slides use one."""
SAMPLES_A_BLOCK: Final = 64
"""Samples of the smallest block that is usual, on average; a decoder keeps about 200 bytes for each block."""
FREE_BLOCKS: Final = 4096
MAX_PACKETS: Final = 4_000_000
"""Layers times resolutions times blocks of one sample: a decoder keeps two bytes for each."""
MAX_LAYERS: Final = 256
MAX_LEVELS: Final = 32


@dataclass(frozen=True)
class _Size:
    """The head of a codestream: its image, the tiles of its own that it is divided into, and the steps between samples, px."""

    width: int
    height: int
    tile_width: int
    tile_height: int
    samples: int
    divisions: int
    steps: tuple[tuple[int, int], ...]


def jpeg2000_size(data: bytes) -> tuple[int, int]:
    """Width and height that a JPEG 2000 codestream, bare or in a file format, announces.

    Raises:
        InvalidImageError: SLIDE_DAMAGED: it is none, or it ends before its size is said.
    """
    start = _start(data)
    if len(data) < start + 24:
        raise damaged("a tile is not the JPEG 2000 that the header says")
    x1, y1, x0, y0 = struct.unpack(">IIII", data[start + 8 : start + 24])
    return x1 - x0, y1 - y0


def check_jpeg2000(data: bytes, width: int, height: int, samples: int) -> None:
    """Refuse a codestream that would take more memory or time than its pixels.

    Args:
        data: the codestream, bare or in a file format.
        width, height: px, as the header of the slide says.
        samples: per pixel.

    Raises:
        InvalidImageError: SLIDE_DAMAGED: it has another size, other samples, a palette, or is divided into far more pieces than any writer makes;
            SLIDE_UNSUPPORTED: its samples are stored at different sizes.
    """
    announced = jpeg2000_size(data)
    if announced != (width, height):
        raise damaged(f"a tile calls itself {announced[0]} x {announced[1]} px where the header says {width} x {height}")
    start = _start(data)
    if b"pclr" in data[:start]:
        raise damaged("a tile has a palette")
    size = _size(data, start)
    if size.samples != samples:
        raise damaged("a tile stores other samples than the header says")
    if size.steps not in _STEPS and len(set(size.steps)) > 1:
        raise InvalidImageError(
            "SLIDE_UNSUPPORTED", "The slide stores its colours in JPEG 2000 at a reduced size that is not read; save it in 4:4:4."
        )
    if size.divisions > MAX_DIVISIONS:
        raise _divided()
    for marker, body in _segments(data, start + 2):
        if marker == _COD and len(body) >= 10:
            _check_coding(size, struct.unpack(">H", body[2:4])[0], body[5:], own_blocks=bool(body[0] & 1))
        elif marker == _COC and len(body) >= 7:
            _check_coding(size, 1, body[2:], own_blocks=bool(body[1] & 1))
        elif marker in (_COD, _COC):
            raise damaged("a tile does not say how it is coded")


def decode_jpeg2000(data: bytes, labelled: bool) -> NDArray[Any]:
    """Decode a codestream; three samples a pixel become RGB.

    A codestream with a component transform gives RGB, whatever its label. Without one, its samples are what its file calls them.

    Args:
        data: a codestream that ``check_jpeg2000`` has accepted.
        labelled: whether the file labels its colours YCbCr.

    Raises:
        InvalidImageError: SLIDE_UNSUPPORTED: only some of its parts have a transform.
    """
    start = _start(data)
    transformed = {body[4] != 0 for marker, body in _segments(data, start + 2) if marker == _COD and len(body) > 4}
    if len(transformed) > 1:
        raise InvalidImageError("SLIDE_UNSUPPORTED", "A tile of the slide mixes colour transforms of JPEG 2000; save it with one.")
    # The bare codestream: the decoder would convert by what the boxes of a file format say, and then this would again.
    pixels = np.asarray(imagecodecs.jpeg2k_decode(data[start:]))
    if _size(data, start).steps in _STEPS:
        return pixels  # the decoder brings them to full size, and to RGB with it
    is_ycbcr = transformed == {False} and (labelled or _YCC in data[:start])
    return rgb_of_ycbcr(pixels) if is_ycbcr and pixels.ndim == 3 and pixels.shape[2] == 3 else pixels


def _start(data: bytes) -> int:
    start = _codestream(data) if data.startswith(_JP2_SIGNATURE) else 0
    if data[start : start + 4] != _START:
        raise damaged("a tile is not the JPEG 2000 that the header says")
    return start


def _codestream(data: bytes) -> int:
    """Where the codestream of a JP2 file begins: after the heads of the boxes before it, which are walked."""
    at = 0
    while at + 16 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        head = 16 if length == 1 else 8
        if kind == b"jp2c":
            return at + head
        length = struct.unpack(">Q", data[at + 8 : at + 16])[0] if length == 1 else length
        if length < head:
            break
        at += length
    raise damaged("a tile is not the JPEG 2000 that the header says")


def _size(data: bytes, start: int) -> _Size:
    if len(data) < start + 42:
        raise damaged("a tile does not say its size")
    x1, y1, x0, y0, tile_width, tile_height, tile_x, tile_y, samples = struct.unpack(">IIIIIIIIH", data[start + 8 : start + 42])
    parts = data[start + 42 : start + 42 + 3 * samples]
    if len(parts) < 3 * samples or min(tile_width, tile_height) < 1 or tile_x > x0 or tile_y > y0:
        raise damaged("a tile does not say its size")
    if any((parts[i] & 0x7F) + 1 > MAX_BITS for i in range(0, len(parts), 3)) or any(not 1 <= parts[i] <= 4 for i in range(len(parts)) if i % 3):
        raise damaged("a tile stores other samples than the header says")
    steps = tuple((parts[i + 1], parts[i + 2]) for i in range(0, len(parts), 3))
    divisions = math.ceil((x1 - tile_x) / tile_width) * math.ceil((y1 - tile_y) / tile_height)
    return _Size(x1 - x0, y1 - y0, min(tile_width, x1 - x0), min(tile_height, y1 - y0), samples, divisions, steps)


def _segments(data: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    """Marker segments of the head of the codestream and of the heads of its parts; what a part holds is stepped over."""
    part, following = 0, 0
    while at + 4 <= len(data):
        marker, length = struct.unpack(">HH", data[at : at + 4])
        if marker == _SOD:
            if following <= at or part > MAX_DIVISIONS * MAX_LEVELS:
                return
            at = following
            continue
        if marker == _END or (part and at == following and marker != _SOT):
            return
        if marker not in _KNOWN or length < 2:
            raise damaged("a tile holds what no JPEG 2000 holds")
        if marker == _SOT and length == 10 and at + 12 <= len(data):
            held = struct.unpack(">I", data[at + 6 : at + 10])[0]
            part, following = part + 1, at + held if held else 0
        yield marker, data[at + 4 : at + 2 + length]
        at += 2 + length


def _check_coding(size: _Size, layers: int, coding: bytes, *, own_blocks: bool) -> None:
    """Count the blocks of all resolutions; ``coding`` begins with the number of levels."""
    levels, block_width, block_height = coding[0], (coding[1] & 15) + 2, (coding[2] & 15) + 2
    if levels > MAX_LEVELS or layers > MAX_LAYERS or (own_blocks and len(coding) < 6 + levels):
        raise _divided()
    blocks = most = 0
    for level in range(levels + 1):
        width, height = (max(1, math.ceil(side / 2 ** (levels - level))) for side in (size.tile_width, size.tile_height))
        packed = coding[5 + level] if own_blocks else 0xFF
        across, down = packed & 15, packed >> 4
        precincts = (math.ceil(width / 2**across) + 1) * (math.ceil(height / 2**down) + 1)
        inner = math.ceil(width / 2 ** min(block_width, across)) * math.ceil(height / 2 ** min(block_height, down))
        most = max(most, precincts)
        blocks += precincts + inner
    allowed = FREE_BLOCKS + size.tile_width * size.tile_height // SAMPLES_A_BLOCK
    if blocks > allowed or layers * (levels + 1) * most > MAX_PACKETS:
        raise _divided()


def _divided() -> InvalidImageError:
    return damaged("a tile is divided into more pieces than any microscope writes")
