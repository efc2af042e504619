"""Sew pieces of pictures together where the eye sees it least: along the path of least difference.

Source: Efros and Freeman, "Image quilting for texture synthesis and transfer" (SIGGRAPH 2001); pasting runs the same cut around a centre.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Float = NDArray[np.float32]
Mask = NDArray[np.bool_]

CANDIDATES: Final = 48
"""Blocks that are tried at each position; the one that differs least from what is there is taken."""
FEATHER: Final = 1.2
"""Sigma in px of the softening of every cut."""
_ANGLES: Final = 128


def least_path(cost: Float) -> NDArray[np.int64]:
    """The path of least cost from the first row to the last, moving at most one column per row.

    Args:
        cost: float32 (rows, columns), not negative.

    Returns:
        int64 (rows,), its column in each row.
    """
    rows, columns = cost.shape
    total = cost.astype(np.float64)
    padded = np.full(columns + 2, np.inf)
    for row in range(1, rows):
        padded[1:-1] = total[row - 1]
        total[row] += np.minimum(np.minimum(padded[:-2], padded[1:-1]), padded[2:])
    path = np.empty(rows, np.int64)
    path[-1] = int(np.argmin(total[-1]))
    for row in range(rows - 2, -1, -1):
        first = max(0, path[row + 1] - 1)
        path[row] = first + int(np.argmin(total[row, first : path[row + 1] + 2]))
    return path


def quilt(blocks: Bytes, height: int, width: int, overlap: int, generator: np.random.Generator) -> Bytes:
    """Fill a canvas with blocks that overlap, each cut along the paths of least difference.

    Args:
        blocks: uint8 (B, side, side, 3), B at least 1.
        height, width: of the canvas in px.
        overlap: px that neighbours have in common, 4 to half a side.
        generator: draws the candidates.

    Returns:
        uint8 (height, width, 3).
    """
    side = blocks.shape[1]
    step = side - overlap
    rows, columns = -(-max(height - overlap, 1) // step), -(-max(width - overlap, 1) // step)
    canvas = np.zeros((rows * step + overlap, columns * step + overlap, 3), np.float32)
    for row in range(rows):
        for column in range(columns):
            square = canvas[row * step : row * step + side, column * step : column * step + side]
            drawn = blocks[generator.choice(len(blocks), min(CANDIDATES, len(blocks)), replace=False)].astype(np.float32)
            chosen = drawn[int(np.argmin(_misfit(drawn, square, overlap, above=row > 0, left=column > 0)))]
            alpha = _block_mask(chosen, square, overlap, above=row > 0, left=column > 0)[..., None]
            square += alpha * (chosen - square)
    return np.rint(canvas[:height, :width]).astype(np.uint8)


def paste(canvas: Bytes, piece: Bytes, core: Mask, left: int, top: int, reach: int) -> Mask:
    """Paste a piece around its core into a canvas, which is changed, cut along the closed path of least difference.

    Args:
        canvas: uint8 (H, W, 3).
        piece: uint8 (h, w, 3).
        core: bool (h, w), what must be pasted; lies wholly inside the piece.
        left, top: position of the piece's first pixel on the canvas; the piece may stick out.
        reach: how far outside the core the cut may run, px.

    Returns:
        bool (H, W), what was pasted.
    """
    height, width = canvas.shape[:2]
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + piece.shape[1], width), min(top + piece.shape[0], height)
    pasted = np.zeros((height, width), np.bool_)
    if x0 >= x1 or y0 >= y1:
        return pasted
    under = piece.astype(np.float32)
    under[y0 - top : y1 - top, x0 - left : x1 - left] = canvas[y0:y1, x0:x1]
    inside = _closed_cut(np.abs(under - piece).sum(axis=2), core, reach)
    alpha = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), FEATHER)[..., None]
    mixed = np.rint(under + alpha * (piece - under)).astype(np.uint8)
    canvas[y0:y1, x0:x1] = mixed[y0 - top : y1 - top, x0 - left : x1 - left]
    pasted[y0:y1, x0:x1] = inside[y0 - top : y1 - top, x0 - left : x1 - left]
    return pasted


def _misfit(drawn: Float, square: Float, overlap: int, *, above: bool, left: bool) -> Float:
    misfit = np.zeros(len(drawn), np.float32)
    if above:
        misfit += ((drawn[:, :overlap] - square[:overlap]) ** 2).sum(axis=(1, 2, 3))
    if left:
        misfit += ((drawn[:, :, :overlap] - square[:, :overlap]) ** 2).sum(axis=(1, 2, 3))
    return misfit


def _block_mask(block: Float, square: Float, overlap: int, *, above: bool, left: bool) -> Float:
    """Share of the new block at each pixel, float32 (side, side)."""
    side = len(block)
    difference = ((block - square) ** 2).sum(axis=2)
    mask = np.ones((side, side), np.float32)
    if left:
        path = least_path(difference[:, :overlap])
        mask[np.arange(side)[None, :] < path[:, None]] = 0.0
    if above:
        path = least_path(difference[:overlap].T)
        mask[np.arange(side)[:, None] < path[None, :]] = 0.0
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), FEATHER), np.float32) if above or left else mask


def _closed_cut(difference: Float, core: Mask, reach: int) -> Mask:
    """Pixels inside the path of least difference around a core, with the core; bool of its shape."""
    rows, columns = np.nonzero(core)
    y, x = rows.mean(), columns.mean()
    bins = (np.arctan2(rows - y, columns - x) / (2 * np.pi) * _ANGLES).astype(np.int64) % _ANGLES
    edge = np.zeros(_ANGLES)
    np.maximum.at(edge, bins, np.hypot(rows - y, columns - x))
    edge = np.maximum.reduce([np.roll(edge, shift) for shift in (-1, 0, 1)]) + 1.0
    angles = (np.arange(_ANGLES) + 0.5) / _ANGLES * 2 * np.pi
    radii = edge[:, None] + np.arange(reach)[None, :]
    map_x, map_y = (x + radii * np.cos(angles)[:, None]), (y + radii * np.sin(angles)[:, None])
    outside = (map_x < 0) | (map_y < 0) | (map_x > core.shape[1] - 1) | (map_y > core.shape[0] - 1)
    cost = cv2.remap(difference.astype(np.float32), map_x.astype(np.float32), map_y.astype(np.float32), cv2.INTER_LINEAR)
    cost = np.where(outside, np.float32(1e6), cost + 1.0)
    path = least_path(np.concatenate([cost, cost, cost]))[_ANGLES : 2 * _ANGLES]
    ring = edge + path
    grid_y, grid_x = np.mgrid[: core.shape[0], : core.shape[1]]
    turn = np.arctan2(grid_y - y, grid_x - x) / (2 * np.pi) * _ANGLES - 0.5
    limit = np.interp(turn, np.arange(_ANGLES), ring, period=_ANGLES)
    return np.asarray((np.hypot(grid_y - y, grid_x - x) <= limit) | core, np.bool_)
