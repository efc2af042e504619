"""Where the nucleated cells of an image are (classical, from the stain alone)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.common import stain

Bytes = NDArray[np.uint8]
Mask = NDArray[np.bool_]

WORKING_SIDE: Final = 1024
"""Images with a longer side are located on a copy reduced by an integer factor to at most this many px."""
RED_CELL_MICRONS: Final = 3.75
"""Radius of a red cell, half of 7.5 micrometres."""
MIN_NUCLEUS_TO_RED_CELL: Final = 0.62
"""A nucleus (all lobes) has at least this many red-cell radii; platelets have less."""
MAX_LOBED_NUCLEUS_TO_RED_CELL: Final = 2.0
"""Lobes are joined up to a convex hull of this many red-cell radii."""
MIN_MEAN_TO_THRESHOLD: Final = 1.15
"""A nucleus is, on average, this much more violet than the threshold; what only grazes it is not one."""
OVERLAP_MAX_HUE_DISTANCE: Final = 0.1
OVERLAP_MAX_VIOLET: Final = 0.8
"""What is as pale as this and has the hue of the red cells is where two of them overlap: twice the density, one hue."""
MIN_RADIUS: Final = 4.0
"""Smallest cell radius in px that is reported."""
MAX_RADIUS: Final = 512.0
"""Largest cell radius in px that is reported."""
MIN_PART_AREA: Final = 12
"""Smallest area in px, on the working copy, of what may be a part of a nucleus."""
MAX_PARTS: Final = 1000
"""Parts of nuclei that are considered, the largest first: bounds the work on speckled images."""
MAX_SEED_REACH: Final = 64
"""Largest radius in px, on the working copy, within which one nucleus has one seed: bounds the work at absurd scales."""
SINGLE_CELL_MAX_SIDE: Final = 512
"""Longest side in px of an image that may be taken for a crop around one cell; published crops have 120..450."""
SINGLE_CELL_MIN_RADIUS: Final = 0.11
"""Least radius of the central cell of such a crop, as a share of its shorter side."""
SINGLE_CELL_MAX_OFFSET: Final = 0.2
"""Farthest centre of that cell from the image centre, as a share of the shorter side."""


@dataclass(frozen=True)
class LocatedCell:
    """One nucleated cell, in pixels of the image (pixel centres at integers, x right, y down).

    Attributes:
        center_x, center_y: centroid of the whole cell.
        radius: sqrt(area / pi) of the whole cell, cytoplasm included.
        x, y, width, height: bounding box, clipped to the image.
        confidence: 0..1, how sure it is that this is a nucleated cell; a rule of contrast and size, not a probability.
    """

    center_x: float
    center_y: float
    radius: float
    x: int
    y: int
    width: int
    height: int
    confidence: float


@dataclass(frozen=True)
class LocatedCells:
    """The cells of one image, from top to bottom, and the typical radius of the red cells in px (None: not seen)."""

    cells: tuple[LocatedCell, ...]
    red_cell_radius: float | None


@dataclass(frozen=True)
class _Nucleus:
    mask: Mask
    left: int
    top: int
    mean_violet: float

    @property
    def radius(self) -> float:
        return stain.equivalent_radius(self.mask)

    @property
    def window(self) -> tuple[slice, slice]:
        height, width = self.mask.shape
        return np.s_[self.top : self.top + height, self.left : self.left + width]


def locate_cells(rgb: Bytes, microns_per_pixel: float | None = None) -> LocatedCells:
    """Find every nucleated cell.

    Args:
        rgb: uint8 (H, W, 3), sides at least 32.
        microns_per_pixel: micrometres per pixel if known; else the scale is taken from the red cells.

    Returns:
        Cells with a radius of ``MIN_RADIUS``..``MAX_RADIUS`` px.
    """
    factor = math.ceil(max(rgb.shape[:2]) / WORKING_SIDE)
    small = rgb if factor == 1 else _reduce(rgb, factor)
    density = stain.optical_density(small, stain.background_light(small))
    violet = stain.violet_index(density)
    foreground = stain.foreground_mask(density)
    seen = stain.red_cell_radius(foreground)
    unit = RED_CELL_MICRONS / (microns_per_pixel * factor) if microns_per_pixel else seen
    sigma = float(np.clip(0.01 * min(violet.shape) if unit is None else 0.12 * unit, 1.0, 3.0))
    smooth = np.asarray(cv2.GaussianBlur(violet, (0, 0), sigma), np.float32)
    peaks = smooth if unit else np.asarray(cv2.GaussianBlur(smooth, (0, 0), 1.5 * sigma), np.float32)
    threshold = stain.nucleus_threshold(peaks, _small_nucleus_area(unit, smooth.size))
    red_cells = foreground & (smooth < threshold)
    nuclei = _without_red_cell_overlaps(_nuclei(smooth, density, threshold, unit), density, red_cells)
    claimed = np.zeros(small.shape[:2], np.int32)
    for index, nucleus in enumerate(nuclei, start=1):
        claimed[nucleus.window][nucleus.mask] = index
    cells = [_measure(n, i, claimed, density, red_cells, threshold, unit) for i, n in enumerate(nuclei, start=1)]
    scaled = [_scale(c, factor, rgb.shape) for c in cells]
    kept = sorted((c for c in scaled if MIN_RADIUS <= c.radius <= MAX_RADIUS), key=lambda c: (c.center_y, c.center_x))
    return LocatedCells(tuple(kept), None if seen is None else seen * factor)


def central_cell(cells: tuple[LocatedCell, ...], height: int, width: int) -> LocatedCell | None:
    """The cell that a single-cell image means: the one that covers the image centre or comes nearest to it."""
    if not cells:
        return None
    x, y = (width - 1) / 2, (height - 1) / 2
    return min(cells, key=lambda c: math.hypot(c.center_x - x, c.center_y - y) - 0.5 * c.radius)


def looks_like_single_cell(cells: tuple[LocatedCell, ...], height: int, width: int) -> bool:
    """Tell a crop around one cell from a field: a small image whose central cell is large in it."""
    cell = central_cell(cells, height, width)
    side = min(height, width)
    if cell is None or max(height, width) > min(SINGLE_CELL_MAX_SIDE, 1.5 * side):
        return False
    offset = math.hypot(cell.center_x - (width - 1) / 2, cell.center_y - (height - 1) / 2)
    return cell.radius > SINGLE_CELL_MIN_RADIUS * side and offset < SINGLE_CELL_MAX_OFFSET * side


def _reduce(rgb: Bytes, factor: int) -> Bytes:
    height, width = rgb.shape[0] // factor, rgb.shape[1] // factor
    cut = rgb[: height * factor, : width * factor]
    return np.asarray(cv2.resize(cut, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _small_nucleus_area(unit: float | None, pixels: int) -> float:
    return 0.005 * pixels if unit is None else math.pi * (0.7 * unit) ** 2


def _nuclei(smooth: stain.Float, density: stain.Float, threshold: float, unit: float | None) -> list[_Nucleus]:
    """Nuclei, all lobes of a cell together; ``unit`` is the red-cell radius in px."""
    parts = _parts(stain.fill_holes(smooth > threshold), unit)
    if not parts:
        return []
    absorbs = density.sum(axis=2) > stain.ABSORBS
    scale = unit or 1.6 * max(p.radius for p in parts)
    found = _join_lobes(parts, absorbs, smooth, scale)
    largest = max(n.radius for n in found)
    least = 0.3 * largest if unit is None else MIN_NUCLEUS_TO_RED_CELL * unit
    return [n for n in found if n.radius >= max(least, 3.0) and n.mean_violet >= MIN_MEAN_TO_THRESHOLD * threshold]


def _without_red_cell_overlaps(nuclei: list[_Nucleus], density: stain.Float, red_cells: Mask) -> list[_Nucleus]:
    pale = [n for n in nuclei if n.mean_violet < OVERLAP_MAX_VIOLET]
    if not pale or not red_cells.any():
        return nuclei
    red_cell = np.median(density[red_cells], axis=0).astype(np.float32)
    medians = np.array([np.median(density[n.window][n.mask], axis=0) for n in pale], np.float32)
    overlaps = {id(n) for n, d in zip(pale, stain.hue_distance(medians, red_cell), strict=True) if d < OVERLAP_MAX_HUE_DISTANCE}
    return [n for n in nuclei if id(n) not in overlaps]


def _parts(mask: Mask, unit: float | None) -> list[_Nucleus]:
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    largest = np.sort(np.argsort(-areas, kind="stable")[:MAX_PARTS]) + 1
    parts: list[_Nucleus] = []
    for label in largest.tolist():
        left, top, width, height, area = (int(v) for v in stats[label])
        if area < MIN_PART_AREA:
            continue
        own = labels[top : top + height, left : left + width] == label
        parts.extend(_Nucleus(part, left, top, 0.0) for part in _split(own, unit))
    return parts


def _join_lobes(parts: list[_Nucleus], absorbs: Mask, smooth: stain.Float, scale: float) -> list[_Nucleus]:
    """Join, nearest first, parts whose common hull is small and holds hardly any background: lobes of one nucleus."""
    groups = list(parts)
    owner = list(range(len(parts)))
    for i, j in _near_pairs(parts, 0.9 * scale):
        a, b = owner[i], owner[j]
        if a == b:
            continue
        union = _union(groups[a], groups[b])
        if _is_one_nucleus(union, absorbs, scale):
            groups[a] = union
            owner = [a if o == b else o for o in owner]
    found = [groups[o] for o in sorted(set(owner))]
    return [replace(n, mean_violet=float(smooth[n.window][n.mask].mean())) for n in found]


def _near_pairs(parts: list[_Nucleus], reach: float) -> list[tuple[int, int]]:
    """Pairs of parts whose centres, less both radii, are at most ``reach`` px apart, nearest first."""
    centres = np.array([(p.left + p.mask.shape[1] / 2, p.top + p.mask.shape[0] / 2) for p in parts])
    radii = np.array([p.radius for p in parts])
    gaps = np.linalg.norm(centres[:, None] - centres[None], axis=2) - radii[:, None] - radii[None]
    first, second = np.nonzero(np.tril(gaps <= reach, k=-1))
    order = np.argsort(gaps[first, second], kind="stable")
    return list(zip(first[order].tolist(), second[order].tolist(), strict=True))


def _union(a: _Nucleus, b: _Nucleus) -> _Nucleus:
    left, top = min(a.left, b.left), min(a.top, b.top)
    right = max(a.left + a.mask.shape[1], b.left + b.mask.shape[1])
    bottom = max(a.top + a.mask.shape[0], b.top + b.mask.shape[0])
    mask = np.zeros((bottom - top, right - left), bool)
    for n in (a, b):
        mask[n.top - top : n.top - top + n.mask.shape[0], n.left - left : n.left - left + n.mask.shape[1]] |= n.mask
    return _Nucleus(mask, left, top, 0.0)


def _is_one_nucleus(union: _Nucleus, absorbs: Mask, scale: float) -> bool:
    hull = stain.nucleus_core(union.mask)
    radius = stain.equivalent_radius(hull)
    if radius > MAX_LOBED_NUCLEUS_TO_RED_CELL * scale:
        return False
    return bool(np.count_nonzero(hull & ~absorbs[union.window]) <= 0.05 * np.count_nonzero(hull))


def _split(mask: Mask, unit: float | None) -> list[Mask]:
    """Cut what is too large or too concave for one nucleus where its distance map has a neck."""
    radius = stain.equivalent_radius(mask)
    if unit is None or radius < 1.3 * unit:
        return [mask]
    padded = np.pad(mask, 1).astype(np.uint8)
    distance = cv2.GaussianBlur(cv2.distanceTransform(padded, cv2.DIST_L2, 5), (0, 0), max(0.5, 0.15 * unit))
    reach = min(max(2, round(0.8 * unit)), MAX_SEED_REACH)
    seeds = (distance >= cv2.dilate(distance, stain.disk(reach))) & (distance > 0.6 * unit)
    count, markers = cv2.connectedComponents(seeds.astype(np.uint8))
    if count <= 2:
        return [mask]
    markers = np.where(padded == 0, count, markers).astype(np.int32)
    relief = np.repeat((255 - np.clip(distance * 255 / distance.max(), 0, 255)).astype(np.uint8)[..., None], 3, axis=2)
    regions = cv2.watershed(relief, markers)[1:-1, 1:-1]
    parts = [(regions == label) & mask for label in range(1, count)]
    return [p for p in parts if p.any()]


def _measure(
    nucleus: _Nucleus, index: int, claimed: NDArray[np.int32], density: stain.Float, red_cells: Mask, threshold: float, unit: float | None
) -> LocatedCell:
    height, width = nucleus.mask.shape
    margin = math.ceil(2.2 * max(nucleus.radius, 0.5 * max(height, width))) + 3
    top, left = max(0, nucleus.top - margin), max(0, nucleus.left - margin)
    window = np.s_[top : nucleus.top + height + margin, left : nucleus.left + width + margin]
    owners = claimed[window]
    own = owners == index
    cell = stain.cell_mask(density[window], own, red_cells[window]) if own.any() else own
    others = (owners > 0) & ~own
    if others.any():
        to_own = cv2.distanceTransform((~own).astype(np.uint8), cv2.DIST_L2, 5)
        to_others = cv2.distanceTransform((~others).astype(np.uint8), cv2.DIST_L2, 5)
        cell &= to_own <= to_others
    rows, columns = np.nonzero(cell)
    if rows.size == 0:
        return LocatedCell(0, 0, 0, 0, 0, 0, 0, 0)
    contrast = min(1.0, 0.5 * nucleus.mean_violet / threshold)
    size = 1.0 if unit is None else min(1.0, nucleus.radius / unit)
    return LocatedCell(
        center_x=float(columns.mean()) + left,
        center_y=float(rows.mean()) + top,
        radius=stain.equivalent_radius(cell),
        x=int(columns.min()) + left,
        y=int(rows.min()) + top,
        width=int(np.ptp(columns)) + 1,
        height=int(np.ptp(rows)) + 1,
        confidence=round(contrast * size, 4),
    )


def _scale(cell: LocatedCell, factor: int, shape: tuple[int, ...]) -> LocatedCell:
    shift = (factor - 1) / 2
    x, y = cell.x * factor, cell.y * factor
    return LocatedCell(
        cell.center_x * factor + shift,
        cell.center_y * factor + shift,
        cell.radius * factor,
        x,
        y,
        min(cell.width * factor, shape[1] - x),
        min(cell.height * factor, shape[0] - y),
        cell.confidence,
    )
