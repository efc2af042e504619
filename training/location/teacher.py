"""Masks for cells of which only a point or a box is known: the classical measurement, told where the cells are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.patching import stain
from services.patching.cells import measure_nucleus
from services.patching.locator_maps import Kind
from services.patching.nucleus import Nucleus
from services.patching.stained import StainedImage
from training.location.annotated import Mark

Mask = NDArray[np.bool_]
Labels = NDArray[np.int32]

SEED: Final = 0.35
"""Radius in red-cell radii of what surely belongs to the nucleus at a point."""
LOCAL_SHARE: Final = 0.5
"""The threshold of one nucleus is at most this share of how violet it is: pale nuclei have a lower one than the darkest of the field."""
LEAST_THRESHOLD: Final = 0.4
"""It is at least this share of the field's own threshold."""
REACH: Final = 2.2
"""How far from its point a nucleus may reach, in red-cell radii."""
BELIEVED: Final = (0.8, 3.2)
"""Least and largest radius of a cell that is believed, in red-cell radii."""
UNSURE: Final = 1.8
"""Around a mark without a mask nobody knows what is cell, within so many red-cell radii."""
MARGIN: Final = 0.25
"""The same around cells that touch, beyond their measured outline."""
LEAST_FIT: Final = 0.75
"""Least intersection over union of the box around a mask and the box that someone drew; else only the nucleus counts."""
BOX_MARGIN: Final = 0.1
"""A cell may leave its box by this share of the box."""


@dataclass(frozen=True, eq=False)
class Taught:
    """Masks of the marks of one image, on its working copy.

    Attributes:
        owners: int32 (h, w), 1 + the index of the mark whose cell a px belongs to; 0 for none.
        nuclei: bool (h, w), those of marks that have a mask.
        is_known: bool (M,), whether a mark has a mask.
        unsure: bool (h, w), pixels of which nobody knows whether they are of a cell.
    """

    owners: Labels
    nuclei: Mask
    is_known: Mask
    unsure: Mask


def teach(image: StainedImage, marks: Sequence[Mark], unit: float) -> Taught:
    """Measure the cells at the marks; platelets have no mask.

    Args:
        image: measured on the working copy.
        marks: in px of the working copy.
        unit: radius of a red cell in px of the working copy.
    """
    nuclei = _nuclei(image, marks, unit)
    owners = np.zeros(nuclei.shape, np.int32)
    is_known = np.zeros(len(marks), bool)
    unsure = np.zeros(nuclei.shape, np.uint8)
    for index, mark in enumerate(marks):
        if mark.kind is Kind.PLATELET:
            continue
        found = _nucleus_of(nuclei, index + 1)
        cell = None if found is None else measure_nucleus(found, 1.0, index + 1, nuclei, image)
        if cell is None or cell.mask is None or not BELIEVED[0] <= cell.radius / unit <= BELIEVED[1]:
            cv2.circle(unsure, (round(mark.x), round(mark.y)), round(UNSURE * unit), 1, cv2.FILLED)
            continue
        mask = cell.mask & _inside(mark, cell.y, cell.x, cell.mask.shape)
        window = np.s_[cell.y : cell.y + cell.height, cell.x : cell.x + cell.width]
        owners[window][mask & (owners[window] == 0)] = index + 1
        is_known[index] = True
    doubtful = _touching(owners, len(marks)) | ~np.array([_fits(mark, owners == i) for i, mark in enumerate(marks, start=1)], bool)
    for index in np.flatnonzero(doubtful & is_known).tolist():
        own = owners == index + 1
        around = cv2.dilate(own.astype(np.uint8), stain.disk(max(1, round(MARGIN * unit)))) > 0
        unsure[around] = 1
        if (box := marks[index].box) is not None:
            unsure[max(0, round(box.top)) : round(box.bottom) + 1, max(0, round(box.left)) : round(box.right) + 1] = 1
        owners[own & (nuclei != index + 1)] = 0
    unsure[owners > 0] = 0
    known = np.concatenate([[False], is_known])[nuclei]
    return Taught(owners, known, is_known, unsure > 0)


def _touching(owners: Labels, count: int) -> Mask:
    """For every mark whether its cell touches another: there the measured cytoplasm is often wrong, and only the nucleus counts."""
    touching = np.zeros(count + 1, bool)
    grown = cv2.dilate(owners.astype(np.float32), stain.disk(2)).astype(np.int32)
    meets = (owners > 0) & (grown != owners)
    touching[owners[meets]] = True
    touching[grown[meets]] = True
    return touching[1:]


def _fits(mark: Mark, mask: Mask) -> bool:
    """Whether a mask fills the box of its mark; true where the mark has no box or no mask."""
    rows, columns = np.nonzero(mask)
    if mark.box is None or not rows.size:
        return True
    box = mark.box
    width = min(box.right, columns.max() + 1) - max(box.left, columns.min())
    height = min(box.bottom, rows.max() + 1) - max(box.top, rows.min())
    both = max(0.0, width) * max(0.0, height)
    either = (box.right - box.left) * (box.bottom - box.top) + (np.ptp(columns) + 1) * (np.ptp(rows) + 1) - both
    return bool(both >= LEAST_FIT * either)


def _nuclei(image: StainedImage, marks: Sequence[Mark], unit: float) -> Labels:
    """1 + index of the mark that a px of a nucleus belongs to: masses that touch are divided between their marks."""
    violet = np.zeros(image.violet.shape, bool)
    seeds = np.zeros(violet.shape, np.int32)
    for index, mark in enumerate(marks):
        if mark.kind is Kind.PLATELET:
            continue
        cv2.circle(seeds, (round(mark.x), round(mark.y)), max(1, round(SEED * unit)), index + 1, cv2.FILLED)
        window = _window(mark, violet.shape, unit)
        values = image.violet[window]
        own = values > _threshold(image, mark, unit)
        violet[window] |= own & _near(mark, window, unit)
    return _divided(stain.fill_holes(violet), seeds)


def _divided(violet: Mask, seeds: Labels) -> Labels:
    """Give every violet px to the nearest seed of its own mass; a mass without a seed, such as a lobe, to the nearest seed of all."""
    if not (seeds > 0).any():
        return np.zeros(violet.shape, np.int32)
    _, masses = cv2.connectedComponents(violet.astype(np.uint8), connectivity=8)
    _, pieces = cv2.distanceTransformWithLabels((seeds == 0).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    rows, columns = np.nonzero(seeds)
    owner, mass = np.zeros(pieces.max() + 1, np.int32), np.zeros(pieces.max() + 1, np.int32)
    owner[pieces[rows, columns]], mass[pieces[rows, columns]] = seeds[rows, columns], masses[rows, columns]
    has_seed = np.zeros(masses.max() + 1, bool)
    has_seed[masses[rows, columns]] = True
    own = violet & ((mass[pieces] == masses) | ~has_seed[masses])
    return np.where(own, owner[pieces], 0).astype(np.int32)


def _threshold(image: StainedImage, mark: Mark, unit: float) -> float:
    near = image.violet[_window(replace(mark, box=None), image.violet.shape, 0.4 * unit / REACH * 2)]
    own = LOCAL_SHARE * float(np.percentile(near, 75)) if near.size else image.threshold
    return float(np.clip(own, LEAST_THRESHOLD * image.threshold, image.threshold))


def _window(mark: Mark, shape: tuple[int, ...], unit: float) -> tuple[slice, slice]:
    reach = math.ceil(REACH * unit)
    x, y = round(mark.x), round(mark.y)
    left, top, right, bottom = x - reach, y - reach, x + reach + 1, y + reach + 1
    if mark.box is not None:
        left, top = min(left, math.floor(mark.box.left)), min(top, math.floor(mark.box.top))
        right, bottom = max(right, math.ceil(mark.box.right)), max(bottom, math.ceil(mark.box.bottom))
    return np.s_[max(0, top) : max(0, min(shape[0], bottom)), max(0, left) : max(0, min(shape[1], right))]


def _near(mark: Mark, window: tuple[slice, slice], unit: float) -> Mask:
    height, width = window[0].stop - window[0].start, window[1].stop - window[1].start
    if mark.box is not None:
        return _inside(mark, window[0].start, window[1].start, (height, width))
    rows, columns = np.ogrid[window[0], window[1]]
    return np.asarray((rows - mark.y) ** 2 + (columns - mark.x) ** 2 <= (REACH * unit) ** 2)


def _inside(mark: Mark, top: int, left: int, shape: tuple[int, ...]) -> Mask:
    """Px of a window that lie in the box of a mark; all where it has none."""
    if mark.box is None:
        return np.ones(shape, bool)
    box = mark.box
    x, y = BOX_MARGIN * (box.right - box.left), BOX_MARGIN * (box.bottom - box.top)
    rows, columns = np.ogrid[top : top + shape[0], left : left + shape[1]]
    return np.asarray((rows >= box.top - y) & (rows <= box.bottom + y) & (columns >= box.left - x) & (columns <= box.right + x))


def _nucleus_of(nuclei: Labels, number: int) -> Nucleus | None:
    rows, columns = np.nonzero(nuclei == number)
    if rows.size < 12:
        return None
    top, left = int(rows.min()), int(columns.min())
    return Nucleus(nuclei[top : rows.max() + 1, left : columns.max() + 1] == number, left, top)
