"""The maps that the locator should say of a window, and where nobody knows what it should say."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.patching.locator_maps import KINDS, STRIDE, Kind
from training.location.window import Window

Float = NDArray[np.float32]

SIGMA: Final = 0.3
"""Standard deviation of the peak of a centre, in red-cell radii."""
LEAST_VISIBLE: Final = 0.3
"""A cell of which the window shows less than this share is neither there nor not there."""
IGNORED: Final = 1.2
"""How far around such a cell the heat maps do not count, in red-cell radii."""


@dataclass(frozen=True, eq=False)
class Targets:
    """Maps of one window or, with one more axis in front, of several; float32, weights 0 or 1.

    Attributes:
        heat, heat_weight: (KINDS, h, w), peaks of centres.
        cell, cell_weight: (h, w), share of each position that is of a cell.
        nucleus, nucleus_weight: (h, w).
        offset: (2, h, w), from a position to the centre of its cell, in red-cell radii.
        offset_weight: (h, w), positions of cells.
    """

    heat: Float
    heat_weight: Float
    cell: Float
    cell_weight: Float
    nucleus: Float
    nucleus_weight: Float
    offset: Float
    offset_weight: Float


def targets_of(window: Window) -> Targets:
    """The maps of one window."""
    side = window.pixels.shape[0] // STRIDE
    heat, heat_weight = np.zeros((KINDS, side, side), np.float32), np.ones((KINDS, side, side), np.float32)
    if not window.platelets_are_marked:
        heat_weight[Kind.PLATELET] = 0.0
    owners = window.owners[::STRIDE, ::STRIDE]
    offset, offset_weight = np.zeros((2, side, side), np.float32), np.zeros((side, side), np.float32)
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    unit = window.red_cell_radius / STRIDE
    seen = [_seen(window, index) for index in range(len(window.kinds))]
    distances = [np.full_like(rows, np.inf) if at is None else (columns - at[0]) ** 2 + (rows - at[1]) ** 2 for at in seen]
    for at, distance in zip(seen, distances, strict=True):
        if at is not None and at[2] < LEAST_VISIBLE:
            heat_weight[:, distance <= (IGNORED * unit) ** 2] = 0.0
    for index, (kind, at, distance) in enumerate(zip(window.kinds.tolist(), seen, distances, strict=True)):
        if at is None or at[2] < LEAST_VISIBLE:
            continue
        x, y, _ = at
        peak = np.exp(-distance / (2 * (SIGMA * unit) ** 2))
        if 0 <= round(y) < side and 0 <= round(x) < side:
            peak[round(y), round(x)] = 1.0
        np.maximum(heat[kind], peak, out=heat[kind])
        heat_weight[kind, distance <= unit**2] = 1.0
        own = owners == index + 1
        offset[0][own], offset[1][own] = ((x - columns) / unit)[own], ((y - rows) / unit)[own]
        offset_weight[own] = 1.0
    sure = _share(~window.unsure)
    cell_weight = (sure == 1.0).astype(np.float32)
    nucleus_weight = cell_weight * float(window.nuclei_are_known)
    return Targets(heat, heat_weight, _share(window.owners > 0), cell_weight, _share(window.nuclei), nucleus_weight, offset, offset_weight)


def stack(targets: list[Targets]) -> Targets:
    """Targets of several windows."""
    return Targets(*(np.stack([getattr(t, field.name) for t in targets]) for field in fields(Targets)))


def _seen(window: Window, index: int) -> tuple[float, float, float] | None:
    """Centre of a mark in positions of the maps, and the share 0..1 of it that the window shows; None where it lies outside."""
    side = window.pixels.shape[0]
    rows, columns = np.nonzero(window.owners == index + 1)
    if rows.size:
        x, y, visible = float(columns.mean()), float(rows.mean()), rows.size / max(1.0, float(window.areas[index]))
    elif window.areas[index] > 0:
        return None
    else:
        x, y, visible = float(window.x[index]), float(window.y[index]), 1.0
        if not (0 <= x < side and 0 <= y < side):
            return None
    return (x - 0.5) / STRIDE, (y - 0.5) / STRIDE, visible


def _share(mask: NDArray[np.bool_]) -> Float:
    side = mask.shape[0] // STRIDE
    return np.asarray(cv2.resize(mask.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA), np.float32)
