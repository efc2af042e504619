"""Join the parts of one nucleus, in a bounded amount of work.

The work is bounded by the pairs of parts that are looked at and by the pixels of the unions that are drawn, the nearest pairs first. Real images
need a hundredth of these bounds. Where they are reached, the parts that are left stay apart.
"""

from __future__ import annotations

import math
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.patching import stain
from services.patching.nucleus import Nucleus, common_box, union

Mask = NDArray[np.bool_]
Points = NDArray[np.int32]

MAX_LOBED_NUCLEUS_TO_RED_CELL: Final = 2.0
"""Lobes are joined up to a convex hull of this many red-cell radii."""
MAX_LOBE_TO_RED_CELL: Final = 0.85
"""Two parts of more red-cell radii may be two nuclei, or the lobes of one large cell."""
MAX_CELL_TO_RED_CELL: Final = 2.6
MAX_BACKGROUND: Final = 0.28
"""They are of one cell if the least circle around them is no larger than a cell and holds no more than this share of background."""
MAX_PAIRS: Final = 16_000
"""Pairs of parts that are looked at. Of some hundred real and drawn images the most was 160."""
MAX_DRAWN: Final = 12
"""Pixels of the unions that are drawn, in pixels of the image. Of the same images the most was 3."""
_ROUNDING: Final = 1.02
"""How much smaller a drawn hull may be than its polygon."""


def join_lobes(parts: list[Nucleus], absorbs: Mask, scale: float, foreground: Mask | None) -> list[Nucleus]:
    """Join, nearest first, parts whose common hull is small and holds hardly any background: lobes of one nucleus.

    Args:
        parts: at least one.
        absorbs: bool (H, W), pixels that are not background.
        scale: radius of the red cells in px.
        foreground: bool (H, W), pixels of cells; where given, large parts with background around them are not joined.
    """
    groups = list(parts)
    owner = list(range(len(parts)))
    hulls: dict[int, Points] = {}
    version = [0] * len(parts)
    refused: dict[tuple[int, int], tuple[int, int]] = {}
    drawn = 0
    for i, j in near_pairs(parts, 0.9 * scale):
        a, b = owner[i], owner[j]
        tried = (min(a, b), max(a, b))
        versions = (version[tried[0]], version[tried[1]])
        if a == b or refused.get(tried) == versions:
            continue
        refused[tried] = versions
        if _is_too_large(_hull(groups, a, hulls), _hull(groups, b, hulls), scale):
            continue
        left, top, right, bottom = common_box(groups[a], groups[b])
        drawn += (right - left) * (bottom - top)
        if drawn > MAX_DRAWN * absorbs.size:
            break
        both = union(groups[a], groups[b])
        may_be_two = min(groups[a].radius, groups[b].radius) > MAX_LOBE_TO_RED_CELL * scale
        if not _is_one_nucleus(both, absorbs, scale):
            continue
        if foreground is None or not may_be_two or not _is_wider_than_a_cell(both, foreground, scale):
            groups[a] = both
            version[a] += 1
            hulls.pop(a)
            owner = [a if o == b else o for o in owner]
    return [groups[o] for o in sorted(set(owner))]


def near_pairs(parts: list[Nucleus], reach: float) -> list[tuple[int, int]]:
    """Pairs of parts whose centres, less both radii, are at most ``reach`` px apart, nearest first."""
    centres = np.array([(p.left + p.mask.shape[1] / 2, p.top + p.mask.shape[0] / 2) for p in parts])
    radii = np.array([p.radius for p in parts])
    gaps = np.linalg.norm(centres[:, None] - centres[None], axis=2) - radii[:, None] - radii[None]
    first, second = np.nonzero(np.tril(gaps <= reach, k=-1))
    order = np.argsort(gaps[first, second], kind="stable")[:MAX_PAIRS]
    return list(zip(first[order].tolist(), second[order].tolist(), strict=True))


def _hull(groups: list[Nucleus], index: int, known: dict[int, Points]) -> Points:
    """Corners of the hull of a group in px of the image, int32 (n, 1, 2)."""
    if index not in known:
        group = groups[index]
        contours, _ = cv2.findContours(group.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=(group.left, group.top))
        known[index] = np.asarray(cv2.convexHull(np.concatenate(contours)), np.int32)
    return known[index]


def _is_too_large(a: Points, b: Points, scale: float) -> bool:
    """Whether the common hull is certainly larger than a lobed nucleus, without drawing it: its pixels are at least the area of its polygon."""
    area = cv2.contourArea(cv2.convexHull(np.concatenate([a, b])))
    return area > _ROUNDING * math.pi * (MAX_LOBED_NUCLEUS_TO_RED_CELL * scale) ** 2


def _is_one_nucleus(both: Nucleus, absorbs: Mask, scale: float) -> bool:
    hull = stain.nucleus_core(both.mask)
    radius = stain.equivalent_radius(hull)
    if radius > MAX_LOBED_NUCLEUS_TO_RED_CELL * scale:
        return False
    return bool(np.count_nonzero(hull & ~absorbs[both.window]) <= 0.05 * np.count_nonzero(hull))


def _is_wider_than_a_cell(both: Nucleus, foreground: Mask, scale: float) -> bool:
    """Whether one cell does not fill the least circle around large parts: lobes lie in the cytoplasm of their cell."""
    rows, columns = np.nonzero(both.mask)
    (x, y), radius = cv2.minEnclosingCircle(np.stack([columns, rows], axis=1).astype(np.float32))
    top, left = max(0, math.floor(both.top + y - radius)), max(0, math.floor(both.left + x - radius))
    inside = foreground[top : math.ceil(both.top + y + radius) + 1, left : math.ceil(both.left + x + radius) + 1]
    y_of, x_of = np.indices(inside.shape)
    circle = (y_of + top - both.top - y) ** 2 + (x_of + left - both.left - x) ** 2 <= radius**2
    background = np.count_nonzero(circle & ~inside)
    return bool(radius > MAX_CELL_TO_RED_CELL * scale or background > MAX_BACKGROUND * np.count_nonzero(circle))
