"""The scale of a field: the radius of its red cells, measured where no nucleus is."""

from __future__ import annotations

import math
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.patching import stain

Mask = NDArray[np.bool_]

MIN_RED_CELLS: Final = 8
"""Least number of peaks for a mode."""
MIN_NUCLEUS: Final = 0.5
"""A violet part larger than this many of the radii seen at first is a nucleus; a smaller one is a platelet or a fringe."""
LARGEST_CORRECTION: Final = 2.0
"""The radius seen at first is at most this many times too large; a mode that implies more is a mode of specks."""
MAX_PEAKS: Final = 20_000
"""Peaks that suffice for a mode; of more, every second or third and so on is taken."""
MAX_DOUBT: Final = 1.5
"""A scale that someone states is believed while the red cells by it are at most this many times larger or smaller than those that are seen."""
SEEN_SHARE: Final = 0.88
"""What is measured of the true radius, typically: 0.96 on drawn fields, 0.80 of the boxes of experts (docs/decisions/0024)."""
MAX_RED_CELL_TO_SIDE: Final = 0.15
"""Largest radius of a red cell, as a share of the shorter side of an image, at which a scale that a caller gives is believed."""
_WIDTH: Final = 0.12
"""Standard deviation of the kernel, in log radius: red cells of one smear differ by about as much."""


def red_cell_scale(depth: stain.Float, peaks: Mask, nuclei: Mask, seen: float | None) -> float | None:
    """Most frequent radius in px of objects without a nucleus, weighted by radius: specks are many, but small.

    Nucleated cells and clumps of red cells, taller peaks of the distance map, pull a median up but not a mode.

    Args:
        depth, peaks: ``stain.distance_peaks`` of the pixels that absorb light.
        nuclei: bool (H, W), violet pixels.
        seen: radius by ``stain.red_cell_radius``, which is kept where the mode has too few peaks.
    """
    if seen is None:
        return None
    _, labels, stats, _ = cv2.connectedComponentsWithStats(nuclei.astype(np.uint8), connectivity=8)
    large = stats[:, cv2.CC_STAT_AREA] > math.pi * (MIN_NUCLEUS * seen) ** 2
    large[0] = False
    to_nucleus = stain.distance_to(large[labels]) if large.any() else np.full(nuclei.shape, np.inf, np.float32)
    radii = depth[peaks & (to_nucleus > 0.8 * depth) & (depth > 2.5)]
    radii = radii[radii > 0.3 * radii.max(initial=0.0)]
    radii = radii[:: 1 + radii.size // MAX_PEAKS]
    if radii.size < MIN_RED_CELLS:
        return seen
    mode = _mode(radii)
    return mode if seen / LARGEST_CORRECTION <= mode <= seen else seen


def is_doubtful(stated: float, seen: float | None) -> bool:
    """Whether a stated scale contradicts the red cells.

    Args:
        stated: radius of a red cell in px by the scale.
        seen: radius in px that was measured; None where none was.
    """
    if seen is None:
        return False
    ratio = stated * SEEN_SHARE / seen
    return max(ratio, 1.0 / ratio) > MAX_DOUBT


def is_believed(stated: float, seen: float | None, side: int) -> bool:
    """Whether a stated scale is neither absurd, because hardly three red cells would fit side by side, nor contradicts the red cells.

    Args:
        stated: radius of a red cell in px by the scale.
        seen: radius in px that was measured; None where none was.
        side: shorter side of the image in px.
    """
    return stated <= MAX_RED_CELL_TO_SIDE * side and not is_doubtful(stated, seen)


def _mode(radii: stain.Float) -> float:
    logs = np.log(radii.astype(np.float64))
    grid = np.linspace(logs.min(), logs.max(), 64)
    density = np.exp(-0.5 * ((grid[:, None] - logs[None]) / _WIDTH) ** 2) @ radii.astype(np.float64)
    return float(np.exp(grid[density.argmax()]))
