"""Nuclei in a map of nuclear stain: parts above a threshold, cut where they touch, joined where they are lobes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.patching import stain
from services.patching.joining import join_lobes
from services.patching.nucleus import Nucleus

Mask = NDArray[np.bool_]

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
MAX_BOXES: Final = 4
"""Pixels of the boxes around these parts, in pixels of the image. Real images need less than one."""
MAX_TOUCHING: Final = 100
"""Nuclei into which one mass is cut: bounds the work on images that are one mass."""
_SMALL_REACH: Final = 8
MAX_SEED_REACH: Final = 64
"""Largest radius in px, on the working copy, within which one nucleus has one seed: bounds the work at absurd scales."""


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
    found = join_lobes(parts, absorbs, unit or 1.6 * max(p.radius for p in parts), foreground)
    return [_with_means(n, nuclear) for n in found]


def _with_means(nucleus: Nucleus, nuclear: stain.Float) -> Nucleus:
    values = nuclear[nucleus.window]
    return replace(nucleus, mean=float(values[nucleus.mask].mean()), hull_mean=float(values[stain.nucleus_core(nucleus.mask)].mean()))


def _parts(mask: Mask, unit: float | None, split: Split) -> list[Nucleus]:
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    largest = np.argsort(-areas, kind="stable")[:MAX_PARTS] + 1
    boxes = np.cumsum(stats[largest, cv2.CC_STAT_WIDTH].astype(np.int64) * stats[largest, cv2.CC_STAT_HEIGHT])
    largest = np.sort(largest[boxes <= MAX_BOXES * mask.size])
    parts: list[Nucleus] = []
    for label in largest.tolist():
        left, top, width, height, area = (int(v) for v in stats[label])
        if area < MIN_PART_AREA:
            continue
        own = labels[top : top + height, left : left + width] == label
        parts.extend(split(Nucleus(own, left, top), unit))
    return _largest(parts)


def _largest(parts: list[Nucleus]) -> list[Nucleus]:
    """At most ``MAX_PARTS`` parts, in the order given."""
    if len(parts) <= MAX_PARTS:
        return parts
    areas = np.array([np.count_nonzero(p.mask) for p in parts])
    return [parts[i] for i in np.sort(np.argsort(-areas, kind="stable")[:MAX_PARTS])]


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
    """Mark places deeper than 0.6 red-cell radii that no place within 0.8 red-cell radii, a disk, exceeds."""
    reach = min(max(2, round(0.8 * unit)), MAX_SEED_REACH)
    within = stain.disk(reach)
    if reach <= _SMALL_REACH:
        return np.asarray((depth >= cv2.dilate(depth, within)) & (depth > 0.6 * unit), bool)
    # A square in the disk leaves few places; the work on these does not grow with the area of the disk.
    square = np.ones((2 * _inscribed_square(reach) + 1,) * 2, np.uint8)
    peaks = np.asarray((depth >= cv2.dilate(depth, square)) & (depth > 0.6 * unit), bool)
    for row, column in np.argwhere(peaks).tolist():
        top, left = max(0, row - reach), max(0, column - reach)
        around = depth[top : row + reach + 1, left : column + reach + 1]
        first_row, first_column = top - row + reach, left - column + reach
        disk = within[first_row : first_row + around.shape[0], first_column : first_column + around.shape[1]]
        peaks[row, column] = not ((around > depth[row, column]) & (disk > 0)).any()
    return peaks


@lru_cache(maxsize=MAX_SEED_REACH)
def _inscribed_square(reach: int) -> int:
    """Half side in px, the middle not counted, of the largest square in a disk."""
    disk = stain.disk(reach)
    return max(half for half in range(reach) if disk[reach - half : reach + half + 1, reach - half : reach + half + 1].all())


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
    sizes = np.bincount(regions[nucleus.mask & (regions > 0)], minlength=count + 1)[1:count]
    seeds = np.sort(np.argsort(-sizes, kind="stable")[:MAX_TOUCHING]) + 1
    parts = [(regions == label) & nucleus.mask for label in seeds.tolist()]
    return [replace(nucleus, mask=p) for p in parts if p.any()]
