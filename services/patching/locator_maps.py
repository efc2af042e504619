"""From the maps of the locator to cells: peaks are centres, pixels of cells belong to the centre that they point at."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.patching.working_image import RED_CELL_RADIUS

Float = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Labels = NDArray[np.int32]
Mask = NDArray[np.bool_]

KINDS: Final = 3
CELL, NUCLEUS, OFFSET_X, OFFSET_Y = KINDS, KINDS + 1, KINDS + 2, KINDS + 3
CHANNELS: Final = KINDS + 4
MAPS: Final = "maps"
"""Name of the output of a locator, float32 (N, CHANNELS, h / STRIDE, w / STRIDE)."""
STRIDE: Final = 2
"""Px of the working image for one position of the maps."""
LEAST_PEAK: Final = 0.3
"""A peak of the heat maps is a centre from this height."""
SMUDGED_WEIGHT: Final = 0.35
"""A centre is of a smudged cell only where this share of that heat exceeds the others: damaged blasts look smudged, and none may be lost."""
_SMOOTHING: Final = 3
"""Side in px of the median by which masks lose the teeth of the maps' positions."""
PEAK_REACH: Final = 0.5
"""Within so many red-cell radii the highest peak counts alone."""
FARTHEST: Final = 0.9
"""A pixel belongs to a centre if it points at most this many red-cell radii past it."""
SURE: Final = 0.35
"""A pixel is of a cell from this value on: of pale cytoplasm the network is never very sure."""
SURE_NUCLEUS: Final = 0.5
"""The same for a nucleus."""
POSSIBLE: Final = 0.2
"""A pixel may be of a cell from this value on."""
LEAST_AREA: Final = 0.35
"""Least area of a cell, as a share of the area of a red cell."""


class Kind(IntEnum):
    """What a centre is of, in the order of the heat maps."""

    NUCLEATED = 0
    SMUDGED = 1
    PLATELET = 2


@dataclass(frozen=True, eq=False)
class MappedCell:
    """One cell in px of the working image; pixel centres at integers.

    Attributes:
        kind: of its centre.
        confidence: 0..1, height of its peak.
        left, top: of the box of its masks.
        mask: bool (h, w), what surely is of the cell.
        possible: bool (h, w), what may be of it; nearly all of the mask.
        nucleus: bool (h, w), what surely is of its nucleus.
    """

    kind: Kind
    confidence: float
    left: int
    top: int
    mask: Mask
    possible: Mask
    nucleus: Mask

    @cached_property
    def area(self) -> int:
        """Px of the mask, at least one."""
        return int(np.count_nonzero(self.mask))

    @cached_property
    def radius(self) -> float:
        """sqrt(area / pi) of the mask."""
        return math.sqrt(self.area / math.pi)

    @cached_property
    def centroid(self) -> tuple[float, float]:
        """(x, y) of the mask."""
        moments = cv2.moments(self.mask.astype(np.uint8), binaryImage=True)
        return moments["m10"] / moments["m00"] + self.left, moments["m01"] / moments["m00"] + self.top


@dataclass(frozen=True, eq=False)
class Peaks:
    """Centres that the heat maps show, from top to bottom: rows and columns of the maps, kinds and heights."""

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    kinds: NDArray[np.intp]
    heights: Float

    def __len__(self) -> int:
        return self.rows.size


def find_centres(heat: Float, red_cell_radius: float = RED_CELL_RADIUS) -> Peaks:
    """Peaks of the heat maps, float32 (KINDS, h, w) in 0..1; of peaks of any kind near each other the highest."""
    highest = heat.max(axis=0)
    reach = max(1, round(PEAK_REACH * red_cell_radius / STRIDE))
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    rows, columns = np.nonzero((highest >= LEAST_PEAK) & (highest >= cv2.dilate(highest, disk)))
    weights = np.where(np.arange(KINDS) == Kind.SMUDGED, SMUDGED_WEIGHT, 1.0)[:, None]
    return Peaks(rows, columns, (weights * heat[:, rows, columns]).argmax(axis=0), highest[rows, columns])


def cells_of_maps(maps: Float, height: int, width: int, red_cell_radius: float = RED_CELL_RADIUS) -> list[MappedCell]:
    """Cells of the working image.

    Args:
        maps: float32 (CHANNELS, h, w): heat maps, whole cell and nucleus, each 0..1, and offsets to the centre in red-cell radii.
        height, width: of the part of the working image that shows the image.
        red_cell_radius: of a red cell, px of the working image.

    Returns:
        Nucleated and smudged cells that have an area, from top to bottom of their peaks.
    """
    centres = find_centres(maps[:KINDS], red_cell_radius)
    if not len(centres):
        return []
    whole = _enlarged(maps[CELL])[:height, :width]
    owners = _owners(centres, whole > POSSIBLE, maps[OFFSET_X : OFFSET_Y + 1], red_cell_radius / STRIDE)
    nucleus = _enlarged(maps[NUCLEUS])[:height, :width] > SURE_NUCLEUS
    return list(_measured(centres, owners, whole > SURE, nucleus, LEAST_AREA * math.pi * red_cell_radius**2))


def _enlarged(values: Float) -> Float:
    """Maps at the side of the working image: the first position lies between its first two px."""
    height, width = values.shape[0] * STRIDE, values.shape[1] * STRIDE
    return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def _owners(centres: Peaks, cell: Mask, offsets: Float, unit: float) -> Labels:
    """For every px of cells the number of its centre, from 1; 0 for none; ``unit`` is the radius of a red cell in positions."""
    height, width = cell.shape
    rows, columns = np.nonzero(cell)
    at = np.minimum(rows // STRIDE, offsets.shape[1] - 1), np.minimum(columns // STRIDE, offsets.shape[2] - 1)
    x = columns / STRIDE - 0.25 + offsets[0][at] * unit
    y = rows / STRIDE - 0.25 + offsets[1][at] * unit
    nearest, distance = _nearest_centre(centres, offsets.shape[1:])
    target = np.clip(np.rint(y).astype(np.intp), 0, offsets.shape[1] - 1), np.clip(np.rint(x).astype(np.intp), 0, offsets.shape[2] - 1)
    number = np.where(distance[target] <= FARTHEST * unit, nearest[target], 0)
    owners = np.zeros((height, width), np.int32)
    owners[rows, columns] = number
    return owners


def _nearest_centre(centres: Peaks, shape: tuple[int, ...]) -> tuple[Labels, Float]:
    """Number, from 1, of the centre nearest to each position, and its distance in positions."""
    free = np.ones(shape, np.uint8)
    free[centres.rows, centres.columns] = 0
    distance, labels = cv2.distanceTransformWithLabels(free, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    number = np.zeros(len(centres) + 1, np.int32)
    number[labels[centres.rows, centres.columns]] = np.arange(1, len(centres) + 1)
    return number[labels], np.asarray(distance, np.float32)


def _measured(centres: Peaks, owners: Labels, sure: Mask, nucleus: Mask, least_area: float) -> Iterator[MappedCell]:
    for number, box in enumerate(_boxes(owners, len(centres) + 1), start=1):
        kind = Kind(int(centres.kinds[number - 1]))
        if kind is Kind.PLATELET or box is None:
            continue
        possible = owners[box] == number
        mask = largest_part(possible & sure[box])
        cell = MappedCell(kind, float(centres.heights[number - 1]), box[1].start, box[0].start, mask, possible, possible & nucleus[box])
        if cell.area >= least_area:
            yield cell


def _boxes(owners: Labels, count: int) -> list[tuple[slice, slice] | None]:
    """The box of each number from 1, None where it owns nothing."""
    rows, columns = np.nonzero(owners)
    numbers = owners[rows, columns]
    low = np.full((2, count), np.iinfo(np.int64).max)
    high = np.full((2, count), -1)
    for axis, positions in enumerate((rows, columns)):
        np.minimum.at(low[axis], numbers, positions)
        np.maximum.at(high[axis], numbers, positions)
    return [None if high[0, n] < 0 else np.s_[low[0, n] : high[0, n] + 1, low[1, n] : high[1, n] + 1] for n in range(1, count)]


def largest_part(mask: Mask) -> Mask:
    """The largest connected part of a mask, smoothed, its holes filled."""
    smooth = cv2.medianBlur(mask.astype(np.uint8), _SMOOTHING)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(smooth, connectivity=4)
    mask = smooth > 0
    if count > 2:
        mask = labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros(mask.shape, np.uint8)
    cv2.drawContours(filled, contours, -1, 1, cv2.FILLED)
    return filled > 0
