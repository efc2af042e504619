"""Make cells touch: copies of a cell of a window are pasted against it, turned, as blasts lie in a cluster."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.patching.locator_maps import Kind
from training.location.window import Window

Bytes = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Float = NDArray[np.float32]
_FAR: Final = -1e6

MOST: Final = 5
"""Copies in one window."""
APART: Final = (0.72, 1.02)
"""Distance of the centres of neighbours, in sums of their radii: from overlapping a little to just touching."""
WHOLE: Final = 0.98
"""Only a cell of which the window shows this share, and whose outline is sure, is copied."""


@dataclass(frozen=True, eq=False)
class _Copy:
    pixels: Bytes
    mask: Mask
    nucleus: Mask
    radius: float


def crowd(window: Window, rng: np.random.Generator) -> Window:
    """Paste up to ``MOST`` copies of one whole nucleated cell against it and each other; as it is where no cell is whole."""
    whole = [i for i in range(len(window.kinds)) if window.kinds[i] == Kind.NUCLEATED and _is_whole(window, i)]
    if not whole:
        return window
    index = int(rng.choice(whole))
    rows, columns = np.nonzero(window.owners == index + 1)
    box = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    mask = window.owners[box] == index + 1
    copied = _Copy(window.pixels[box].copy(), mask, window.nuclei[box] & mask, math.sqrt(rows.size / math.pi))
    placed = [(float(columns.mean()), float(rows.mean()))]
    for _ in range(int(rng.integers(1, MOST + 1))):
        x, y = placed[int(rng.integers(len(placed)))]
        angle, distance = rng.uniform(0, 2 * math.pi), 2 * copied.radius * rng.uniform(*APART)
        spot = (x + distance * math.cos(angle), y + distance * math.sin(angle))
        if min(math.dist(spot, other) for other in placed) >= 2 * copied.radius * APART[0]:
            window = _paste(window, _turned(copied, rng), spot)
            placed.append(spot)
    return window


def _is_whole(window: Window, index: int) -> bool:
    own = window.owners == index + 1
    shown = np.count_nonzero(own)
    if not shown or shown < WHOLE * window.areas[index]:
        return False
    around = cv2.dilate(own.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return not (around & window.unsure).any()


def _turned(copied: _Copy, rng: np.random.Generator) -> _Copy:
    angle = float(rng.uniform(0, 360))
    height, width = copied.mask.shape
    side = math.ceil(math.hypot(height, width)) + 2
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
    turn[:, 2] += (side - width) / 2, (side - height) / 2
    pixels = cv2.warpAffine(copied.pixels, turn, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    mask, nucleus = (cv2.warpAffine(m.astype(np.uint8), turn, (side, side), flags=cv2.INTER_NEAREST) > 0 for m in (copied.mask, copied.nucleus))
    return _Copy(np.asarray(pixels, np.uint8), mask, nucleus, copied.radius)


def _paste(window: Window, copied: _Copy, spot: tuple[float, float]) -> Window:
    """Paste a cell with its centre at a spot; what it covers belongs to it."""
    side = window.pixels.shape[0]
    rows, columns = np.nonzero(copied.mask)
    if not rows.size:
        return window
    top, left = round(spot[1] - rows.mean()), round(spot[0] - columns.mean())
    inside = (rows + top >= 0) & (rows + top < side) & (columns + left >= 0) & (columns + left < side)
    own, at = (rows[inside], columns[inside]), (rows[inside] + top, columns[inside] + left)
    pixels, owners, nuclei, unsure = window.pixels.copy(), window.owners.copy(), window.nuclei.copy(), window.unsure.copy()
    pixels[at] = copied.pixels[own]
    owners[at] = len(window.kinds) + 1
    nuclei[at] = copied.nucleus[own]
    unsure[at] = False
    x, y = _without_covered(window, owners == len(window.kinds) + 1)
    return replace(
        window,
        pixels=pixels,
        owners=owners,
        nuclei=nuclei,
        unsure=unsure,
        x=np.append(x, np.float32(spot[0])),
        y=np.append(y, np.float32(spot[1])),
        kinds=np.append(window.kinds, np.int8(Kind.NUCLEATED)),
        areas=np.append(window.areas, np.float32(rows.size)),
    )


def _without_covered(window: Window, covered: Mask) -> tuple[Float, Float]:
    """Positions of the marks; those without a mask that are covered lie far outside."""
    x, y = window.x.copy(), window.y.copy()
    side = covered.shape[0]
    for index in np.flatnonzero(window.areas == 0).tolist():
        column, row = round(float(x[index])), round(float(y[index]))
        if 0 <= column < side and 0 <= row < side and covered[row, column]:
            x[index] = y[index] = _FAR
    return x, y
