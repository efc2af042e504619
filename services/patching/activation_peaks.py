"""Peaks of the class activations of patches: candidates for cells, merged over overlapping patches. NumPy only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.patching.grid import Patch

Float = NDArray[np.float32]
Double = NDArray[np.float64]
Flags = NDArray[np.bool_]
_FLAT: Final = 1e-6
"""A curvature below this, in logits, moves no peak between places."""


@dataclass(frozen=True)
class Peak:
    """A candidate for a cell.

    Attributes:
        x, y: in px of the field, pixel centres at integers, x right, y down.
        label: index of the class whose activation peaks, as in the last axis of the activations.
        activation: logit at the peak's place.
    """

    x: float
    y: float
    label: int
    activation: float


def peaks(activations: Float, patch: Patch, min_activation: float, most: int | None = None) -> tuple[Peak, ...]:
    """Find the local maxima of the class activations of one patch.

    A place is a maximum if none of its up to eight neighbours exceeds it; of equal neighbours the first in reading order counts. Its
    position is refined between places, by at most half a place, by a parabola through it and its neighbours along each axis.

    Args:
        activations: float32 (h, w, classes), logits by place; the places are equal shares of the patch.
        patch: the judged square of the field, in px of the field, before it is resized for the network.
        min_activation: maxima below this logit are no candidates.
        most: how many maxima count, the strongest; None for all.

    Returns:
        Peaks of all classes, the strongest first.
    """
    height, width, _ = activations.shape
    values = activations.astype(np.float64)  # float32 would round the threshold
    is_peak = _maxima(values) & (values >= min_activation)
    places = np.flatnonzero(is_peak)
    if most is not None and places.size > most:
        places = np.sort(places[np.argsort(-values.ravel()[places], kind="stable")[:most]])
    rows, columns, labels = np.unravel_index(places, is_peak.shape)
    found = []
    for row, column, label in zip(rows.tolist(), columns.tolist(), labels.tolist(), strict=True):
        plane = values[:, :, label]
        x = (column + 0.5 + _offset(plane[row], column)) / width * patch.side - 0.5 + patch.x
        y = (row + 0.5 + _offset(plane[:, column], row)) / height * patch.side - 0.5 + patch.y
        found.append(Peak(x, y, label, float(plane[row, column])))
    return tuple(sorted(found, key=by_strength))


def merge(found: Iterable[Peak], radius: float) -> tuple[Peak, ...]:
    """Of peaks of any class that are nearer to each other than a radius, keep only the strongest: one cell has one peak.

    Args:
        found: peaks of any number of patches of one field.
        radius: in px of the field; peaks exactly this far apart are two cells.

    Returns:
        The kept peaks, the strongest first. No two are nearer than ``radius``. Every dropped peak is nearer than that to a kept peak that is at
        least as strong.
    """
    ordered = sorted(found, key=by_strength)
    positions = np.array([(p.x, p.y) for p in ordered], np.float64).reshape(-1, 2)
    free = np.ones(len(ordered), np.bool_)
    kept = []
    for i, peak in enumerate(ordered):
        if free[i]:
            kept.append(peak)
            free &= np.hypot(*(positions - positions[i]).T) >= radius
    return tuple(kept)


def by_strength(peak: Peak) -> tuple[float, float, float, int]:
    """Key that sorts peaks, the strongest first; of equal ones the upper and left one."""
    return -peak.activation, peak.y, peak.x, peak.label


def _maxima(values: Double) -> Flags:
    """Mark, class by class, the places that no neighbour exceeds and no earlier neighbour equals."""
    padded = np.pad(values, ((1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    height, width, _ = values.shape
    is_maximum = np.ones(values.shape, np.bool_)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            if (down, right) == (0, 0):
                continue
            neighbour = padded[1 + down : 1 + down + height, 1 + right : 1 + right + width]
            is_earlier = (down, right) < (0, 0)
            is_maximum &= values > neighbour if is_earlier else values >= neighbour
    return is_maximum


def _offset(line: Double, index: int) -> float:
    """Peak of a parabola through a maximum and its two neighbours, in places from the maximum; 0 at the ends of the line."""
    if not 0 < index < len(line) - 1:
        return 0.0
    before, here, after = (float(v) for v in line[index - 1 : index + 2])
    curvature = before - 2.0 * here + after
    return float(np.clip(0.5 * (before - after) / curvature, -0.5, 0.5)) if curvature < -_FLAT else 0.0
