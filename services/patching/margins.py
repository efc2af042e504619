"""The part of an image that is a picture: margins of one colour around it, as pages and screenshots have, are no field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.common.image_codec import MIN_SIDE

Bytes = NDArray[np.uint8]

FLAT: Final = 12
"""Largest difference from the colour of a margin, in grey levels."""
FLAT_SHARE: Final = 0.97
"""Least share of a row that has the colour of the margin."""
RINGING: Final = 32
"""Rows beside a margin that the blocks of a JPEG, also of half resolution in colour, may blend with it, px."""
BLENDED: Final = 20
BLENDED_SHARE: Final = 0.9
"""A row blends with the margin where this share of it differs by at most ``BLENDED`` grey levels."""
MAX_SIMILAR: Final = 0.5
"""Share of the first rows of a picture that may have the colour of its margin; the background of a field and the black around one cell have more."""
_FIRST_ROWS: Final = 8
_CHUNK: Final = 64


@dataclass(frozen=True)
class Box:
    """A part of an image, px; right and bottom are excluded."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def origin(self) -> tuple[int, int]:
        """Of its first pixel, x and y."""
        return self.left, self.top

    def of(self, rgb: Bytes) -> Bytes:
        """A view of the part."""
        return rgb[self.top : self.bottom, self.left : self.right]


def picture_box(rgb: Bytes) -> Box:
    """The part of an image within margins of one colour, on one side or all; the whole image where it has none.

    A margin is what rows of one colour at the edge have in common, where the picture beside it is of another colour.

    Args:
        rgb: uint8 (H, W, 3).
    """
    box = Box(0, 0, rgb.shape[1], rgb.shape[0])
    for _ in range(2):  # margins of two colours meet: one is seen only when the other is gone
        inner = box.of(rgb)
        top = _margin(inner)
        bottom = _margin(inner[top:][::-1])
        columns = inner[top : inner.shape[0] - bottom].transpose(1, 0, 2)
        left = _margin(columns)
        right = _margin(columns[left:][::-1])
        found = Box(box.left + left, box.top + top, box.right - right, box.bottom - bottom)
        if found == box or min(found.right - found.left, found.bottom - found.top) < MIN_SIDE:
            break
        box = found
    return box


def _margin(rows: Bytes) -> int:
    """Rows of the margin at the beginning; 0 where there is none."""
    colour = np.median(rows[0], axis=0).astype(np.int16)
    height = _flat_rows(rows, colour)
    if not 0 < height < len(rows) - MIN_SIDE:
        return 0
    beside = _difference(rows[height : height + RINGING], colour)
    blends = (beside <= BLENDED).mean(axis=1) >= BLENDED_SHARE
    height += int(np.argmin(np.append(blends, False)))
    if height > len(rows) - MIN_SIDE:
        return 0
    first = _difference(rows[height : height + _FIRST_ROWS], colour)
    return height if (first <= FLAT).mean() <= MAX_SIMILAR else 0


def _flat_rows(rows: Bytes, colour: NDArray[np.int16]) -> int:
    for start in (0, *range(1, len(rows), _CHUNK)):
        flat = (_difference(rows[start : start + (_CHUNK if start else 1)], colour) <= FLAT).mean(axis=1) >= FLAT_SHARE
        if not flat.all():
            return int(start + np.argmin(flat))
    return len(rows)


def _difference(rows: Bytes, colour: NDArray[np.int16]) -> NDArray[np.int16]:
    """Largest difference of a channel, int16 (H, W)."""
    return np.asarray(np.abs(rows.astype(np.int16) - colour).max(axis=2), np.int16)
