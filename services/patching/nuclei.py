"""Nuclei in a map of nuclear stain: parts above a threshold, cut where they touch, joined where they are lobes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.patching import stain

Mask = NDArray[np.bool_]

MAX_LOBED_NUCLEUS_TO_RED_CELL: Final = 2.0
"""Lobes are joined up to a convex hull of this many red-cell radii."""
MAX_LOBE_TO_RED_CELL: Final = 0.85
"""Two parts of more red-cell radii may be two nuclei, or the lobes of one large cell."""
MAX_CELL_TO_RED_CELL: Final = 2.6
MAX_BACKGROUND: Final = 0.28
"""They are of one cell if the least circle around them is no larger than a cell and holds no more than this share of background."""
MIN_TOUCHING_TO_RED_CELL: Final = 1.3
"""A part larger than this many red-cell radii may be two nuclei that touch."""
MIN_DISK_TO_RED_CELL: Final = 0.7
"""Each of two nuclei that touch holds a disk of this many red-cell radii; lobes are smaller."""
MAX_NECK: Final = 0.75
"""The neck between two nuclei that touch is narrower than this share of the narrower one; else they are one indented nucleus."""
MIN_PART_AREA: Final = 12
"""Smallest area in px, on the working copy, of a part of a nucleus."""
MAX_PARTS: Final = 1000
"""Parts of nuclei that are considered, the largest first: bounds the work on speckled images."""
MAX_TOUCHING: Final = 100
"""Nuclei into which one mass is cut: bounds the work on images that are one mass."""
MAX_SEED_REACH: Final = 64
"""Largest radius in px, on the working copy, within which one nucleus has one seed: bounds the work at absurd scales."""


@dataclass(frozen=True)
class Nucleus:
    """All lobes of one nucleus, or a part of it: a mask, bool (h, w), with its position in the image in px."""

    mask: Mask
    left: int
    top: int
    mean: float = 0.0
    """Mean of the map of nuclear stain in the mask."""
    hull_mean: float = 0.0
    """Mean of that map in the convex hull of the mask, between the lobes too."""

    @property
    def radius(self) -> float:
        """Radius in px of the disk of its area."""
        return stain.equivalent_radius(self.mask)

    @property
    def window(self) -> tuple[slice, slice]:
        """Where the mask lies in the image."""
        height, width = self.mask.shape
        return np.s_[self.top : self.top + height, self.left : self.left + width]


Split = Callable[[Nucleus, float | None], list[Nucleus]]
"""Cuts nuclei that touch; the second argument is the radius of the red cells in px."""


def find_nuclei(
    nuclear: stain.Float, threshold: float, absorbs: Mask, unit: float | None, split: Split, foreground: Mask | None = None
) -> list[Nucleus]:
    """Find candidates for nuclei, of any size.

    Args:
        nuclear: map of nuclear stain, float32 (H, W), smoothed.
        threshold: its value above which a pixel belongs to a nucleus.
        absorbs: bool (H, W), pixels that are not background.
        unit: radius of the red cells in px; None where it is not known.
        split: cuts nuclei that touch.
        foreground: bool (H, W), pixels of cells; where given, large parts with background around them are not joined.
    """
    parts = _parts(stain.fill_holes(nuclear > threshold), unit, split)
    if not parts:
        return []
    found = _join_lobes(parts, absorbs, unit or 1.6 * max(p.radius for p in parts), foreground)
    return [_with_means(n, nuclear) for n in found]


def _with_means(nucleus: Nucleus, nuclear: stain.Float) -> Nucleus:
    values = nuclear[nucleus.window]
    return replace(nucleus, mean=float(values[nucleus.mask].mean()), hull_mean=float(values[stain.nucleus_core(nucleus.mask)].mean()))


def _parts(mask: Mask, unit: float | None, split: Split) -> list[Nucleus]:
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    largest = np.sort(np.argsort(-areas, kind="stable")[:MAX_PARTS]) + 1
    parts: list[Nucleus] = []
    for label in largest.tolist():
        left, top, width, height, area = (int(v) for v in stats[label])
        if area < MIN_PART_AREA:
            continue
        own = labels[top : top + height, left : left + width] == label
        parts.extend(split(Nucleus(own, left, top), unit))
    return parts


def _join_lobes(parts: list[Nucleus], absorbs: Mask, scale: float, foreground: Mask | None) -> list[Nucleus]:
    """Join, nearest first, parts whose common hull is small and holds hardly any background: lobes of one nucleus."""
    groups = list(parts)
    owner = list(range(len(parts)))
    for i, j in _near_pairs(parts, 0.9 * scale):
        a, b = owner[i], owner[j]
        if a == b:
            continue
        union = _union(groups[a], groups[b])
        may_be_two = min(groups[a].radius, groups[b].radius) > MAX_LOBE_TO_RED_CELL * scale
        if not _is_one_nucleus(union, absorbs, scale):
            continue
        if foreground is None or not may_be_two or not _is_wider_than_a_cell(union, foreground, scale):
            groups[a] = union
            owner = [a if o == b else o for o in owner]
    return [groups[o] for o in sorted(set(owner))]


def _near_pairs(parts: list[Nucleus], reach: float) -> list[tuple[int, int]]:
    """Pairs of parts whose centres, less both radii, are at most ``reach`` px apart, nearest first."""
    centres = np.array([(p.left + p.mask.shape[1] / 2, p.top + p.mask.shape[0] / 2) for p in parts])
    radii = np.array([p.radius for p in parts])
    gaps = np.linalg.norm(centres[:, None] - centres[None], axis=2) - radii[:, None] - radii[None]
    first, second = np.nonzero(np.tril(gaps <= reach, k=-1))
    order = np.argsort(gaps[first, second], kind="stable")
    return list(zip(first[order].tolist(), second[order].tolist(), strict=True))


def _union(a: Nucleus, b: Nucleus) -> Nucleus:
    left, top = min(a.left, b.left), min(a.top, b.top)
    right = max(a.left + a.mask.shape[1], b.left + b.mask.shape[1])
    bottom = max(a.top + a.mask.shape[0], b.top + b.mask.shape[0])
    mask = np.zeros((bottom - top, right - left), bool)
    for n in (a, b):
        mask[n.top - top : n.top - top + n.mask.shape[0], n.left - left : n.left - left + n.mask.shape[1]] |= n.mask
    return Nucleus(mask, left, top)


def _is_one_nucleus(union: Nucleus, absorbs: Mask, scale: float) -> bool:
    hull = stain.nucleus_core(union.mask)
    radius = stain.equivalent_radius(hull)
    if radius > MAX_LOBED_NUCLEUS_TO_RED_CELL * scale:
        return False
    return bool(np.count_nonzero(hull & ~absorbs[union.window]) <= 0.05 * np.count_nonzero(hull))


def _is_wider_than_a_cell(union: Nucleus, foreground: Mask, scale: float) -> bool:
    """Whether one cell does not fill the least circle around large parts: lobes lie in the cytoplasm of their cell."""
    rows, columns = np.nonzero(union.mask)
    (x, y), radius = cv2.minEnclosingCircle(np.stack([columns, rows], axis=1).astype(np.float32))
    top, left = max(0, math.floor(union.top + y - radius)), max(0, math.floor(union.left + x - radius))
    inside = foreground[top : math.ceil(union.top + y + radius) + 1, left : math.ceil(union.left + x + radius) + 1]
    y_of, x_of = np.indices(inside.shape)
    circle = (y_of + top - union.top - y) ** 2 + (x_of + left - union.left - x) ** 2 <= radius**2
    background = np.count_nonzero(circle & ~inside)
    return bool(radius > MAX_CELL_TO_RED_CELL * scale or background > MAX_BACKGROUND * np.count_nonzero(circle))


def split_at_necks(nucleus: Nucleus, unit: float | None) -> list[Nucleus]:
    """Cut a part that is too large for one nucleus at its neck.

    Each peak of the distance map stands for a disk inscribed in one nucleus. A pixel goes to the disk to which it has the least power: the cut
    between two disks is the straight line through the points where they cross.
    """
    if unit is None or nucleus.radius < MIN_TOUCHING_TO_RED_CELL * unit:
        return [nucleus]
    disks = _inscribed_disks(_depth(nucleus.mask, unit), unit)
    if len(disks) < 2:
        return [nucleus]
    rows, columns = np.nonzero(nucleus.mask)
    least = np.full(rows.size, np.inf)
    nearest = np.zeros(rows.size, int)
    for k, (y, x, radius) in enumerate(disks):
        power = (rows + 1 - y) ** 2 + (columns + 1 - x) ** 2 - radius**2
        nearest[power < least] = k
        np.minimum(least, power, out=least)
    pieces = [(rows[nearest == k], columns[nearest == k]) for k in range(len(disks))]
    return [_piece(r, c, nucleus) for r, c in pieces if r.size]


def _piece(rows: NDArray[np.int_], columns: NDArray[np.int_], whole: Nucleus) -> Nucleus:
    top, left = int(rows.min()), int(columns.min())
    mask = np.zeros((int(rows.max()) - top + 1, int(columns.max()) - left + 1), bool)
    mask[rows - top, columns - left] = True
    return Nucleus(mask, whole.left + left, whole.top + top)


def _depth(mask: Mask, unit: float) -> stain.Float:
    """Distance in px to the edge of a mask, smoothed, float32 (h + 2, w + 2): with a margin of one px."""
    distance = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)
    return np.asarray(cv2.GaussianBlur(distance, (0, 0), max(0.5, 0.15 * unit)), np.float32)


def _peaks(depth: stain.Float, unit: float) -> Mask:
    reach = min(max(2, round(0.8 * unit)), MAX_SEED_REACH)
    return np.asarray((depth >= cv2.dilate(depth, stain.disk(reach))) & (depth > 0.6 * unit), bool)


def _inscribed_disks(depth: stain.Float, unit: float) -> list[tuple[float, float, float]]:
    """Row, column and radius of disks that a neck separates, the largest first."""
    peaks = _peaks(depth, unit) & (depth > MIN_DISK_TO_RED_CELL * unit)
    count, _, _, centres = cv2.connectedComponentsWithStats(peaks.astype(np.uint8), connectivity=8)
    disks = [(float(y), float(x), float(depth[round(float(y)), round(float(x))])) for x, y in centres[1:count]]
    kept: list[tuple[float, float, float]] = []
    for disk in sorted(disks, key=lambda d: -d[2])[:MAX_TOUCHING]:
        if all(_neck(depth, disk, other) < MAX_NECK * min(disk[2], other[2]) for other in kept):
            kept.append(disk)
    return kept


def _neck(depth: stain.Float, a: tuple[float, float, float], b: tuple[float, float, float]) -> float:
    """Least half-width, in px, between two disks."""
    steps = math.ceil(math.hypot(a[0] - b[0], a[1] - b[1])) + 1
    rows = np.linspace(a[0], b[0], steps).round().astype(int)
    columns = np.linspace(a[1], b[1], steps).round().astype(int)
    return float(depth[rows, columns].min())


def split_by_flooding(nucleus: Nucleus, unit: float | None) -> list[Nucleus]:
    """Cut nuclei in a crop around one cell as for the released networks: seeds and ground flood the mask at one speed."""
    if unit is None or nucleus.radius < MIN_TOUCHING_TO_RED_CELL * unit:
        return [nucleus]
    depth = _depth(nucleus.mask, unit)
    count, markers = cv2.connectedComponents(_peaks(depth, unit).astype(np.uint8))
    if count <= 2:
        return [nucleus]
    markers = np.where(np.pad(nucleus.mask, 1), markers, count).astype(np.int32)
    relief = np.repeat((255 - np.clip(depth * 255 / depth.max(), 0, 255)).astype(np.uint8)[..., None], 3, axis=2)
    regions = cv2.watershed(relief, markers)[1:-1, 1:-1]
    parts = [(regions == label) & nucleus.mask for label in range(1, count)]
    return [replace(nucleus, mask=p) for p in parts if p.any()]
