"""Tell nuclei from parts that only look like nuclei, each with a confidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.patching import stain
from services.patching.nuclei import find_nuclei, split_at_necks, split_by_flooding
from services.patching.nucleus import Nucleus
from services.patching.stained import StainedImage, median_and_deviation, median_density, small_nucleus_area

Mask = NDArray[np.bool_]

MIN_NUCLEUS_TO_RED_CELL: Final = 0.62
"""A nucleus (all lobes) has at least this many red-cell radii; platelets have less."""
MIN_MEAN_TO_THRESHOLD: Final = 1.15
FIELD_MIN_MEAN_TO_THRESHOLD: Final = 1.1
"""A nucleus is, on average, this much more violet than the threshold; a part that only grazes the threshold is none."""
MIN_HULL_TO_THRESHOLD: Final = 0.8
"""The hull of a nucleus, the gaps between its lobes included, is this violet; a heap of coloured fringes is not."""
MAX_BLUE_DENSITY: Final = 2.0
MAX_BLUE_SHARE: Final = 0.31
"""A nucleus lets blue through: at most this share of its density is in blue. For black ink this share is a third."""
OVERLAP_MAX_HUE_DISTANCE: Final = 0.1
OVERLAP_MAX_VIOLET: Final = 0.8
"""A part as pale as this with the hue of the red cells is an overlap of two of them: twice the density, one hue."""
MIN_HUE_DISTANCE: Final = 0.18
CLEAR_DEVIATIONS: Final = 4.0
"""A nucleus differs in hue from the red cells, or is more violet than them by this many of their deviations."""
MAX_PALER_ROUNDS: Final = 2
"""Number of searches for nuclei that are paler than those found so far."""
PALER_MIN_DISTANCE: Final = 0.5
"""Paler nuclei are searched beyond this many red-cell radii from those found: nearer lies their cytoplasm."""
PALER_MIN_NUCLEUS_TO_RED_CELL: Final = 0.8
PALER_MIN_TO_FIRST: Final = 0.9
PALER_MIN_DEVIATIONS: Final = 4.5
PALER_LEAST_DEVIATION: Final = 0.1
"""Paler nuclei nearly reach the threshold of the darkest, or exceed the red cells by this many of their deviations."""
PALER_MIN_DENSITY: Final = 1.15
"""Paler nuclei are still denser than the red cells by this factor."""


@dataclass(frozen=True)
class Candidate:
    """A nucleus with its confidence, 0..1."""

    nucleus: Nucleus
    confidence: float


def nuclei_of_crop(image: StainedImage) -> list[Candidate]:
    """The nuclei of a small image, by the rule that registered the crops of the released networks."""
    found = find_nuclei(image.violet, image.threshold, image.absorbs, image.first_unit, split_by_flooding)
    kept = _without_red_cell_overlaps(_large_and_violet(found, image.first_unit, MIN_MEAN_TO_THRESHOLD * image.threshold), image)
    return [Candidate(n, _confidence(n, image.first_unit, image.threshold)) for n in kept]


def nuclei_of_field(image: StainedImage) -> list[Candidate]:
    """The nuclei of a field: the darkest first, then paler ones that are still unlike the red cells."""
    nuclei = _without_red_cell_overlaps(_nuclei_above(image.violet, image.threshold, image), image)
    found = [Candidate(n, _confidence(n, image.unit, image.threshold)) for n in _unlike_red_cells(nuclei, image)]
    for _ in range(MAX_PALER_ROUNDS if image.unit is not None else 0):
        paler = _paler_nuclei(image, [c.nucleus for c in found])
        if not paler:
            break
        found += paler
    return found


def _nuclei_above(nuclear: stain.Float, threshold: float, image: StainedImage) -> list[Nucleus]:
    found = find_nuclei(nuclear, threshold, image.absorbs, image.unit, split_at_necks, image.foreground)
    violet = _large_and_violet(found, image.unit, FIELD_MIN_MEAN_TO_THRESHOLD * threshold)
    return [n for n in violet if n.hull_mean >= MIN_HULL_TO_THRESHOLD * threshold and not _is_printed(n, image.density)]


def _is_printed(nucleus: Nucleus, density: stain.Float) -> bool:
    """Whether it absorbs as much blue as ink: scale bars and captions, grey, black or red."""
    median = np.median(density[nucleus.window][nucleus.mask], axis=0)
    return bool(median[2] > MAX_BLUE_DENSITY or median[2] > MAX_BLUE_SHARE * median.sum())


def _unlike_red_cells(nuclei: list[Nucleus], image: StainedImage) -> list[Nucleus]:
    """Drop nuclei that are hardly more violet than the red cells and have nearly their hue: rims of red cells in a weak stain."""
    if image.unit is None or not nuclei or not image.red_cells.any():
        return nuclei
    median, deviation = median_and_deviation(image.violet, image.red_cells)
    clear = median + CLEAR_DEVIATIONS * deviation
    red_cell = median_density(image.density, image.red_cells)
    return [n for n in nuclei if n.mean > clear or _hue_distance(n, image.density, red_cell) > MIN_HUE_DISTANCE]


def _hue_distance(nucleus: Nucleus, density: stain.Float, red_cell: stain.Float) -> float:
    return float(stain.hue_distance(np.median(density[nucleus.window][nucleus.mask], axis=0).astype(np.float32), red_cell))


def _paler_nuclei(image: StainedImage, found: list[Nucleus]) -> list[Candidate]:
    """Find paler nuclei: a pyknotic nucleus, or one so dark that it looks blue, sets too high a threshold."""
    unit = image.unit or 0.0
    free = _far_from(found, image.violet.shape, PALER_MIN_DISTANCE * unit)
    nuclear = np.where(free, image.green_over_blue, 0).astype(np.float32)
    share_of_peak = stain.nucleus_threshold(nuclear, small_nucleus_area(unit, nuclear.size))
    red_cells = image.foreground & free & (nuclear < share_of_peak)
    if not red_cells.any():
        return []
    median, deviation = median_and_deviation(nuclear, red_cells)
    deviation = max(deviation, PALER_LEAST_DEVIATION)
    if share_of_peak / stain.NUCLEUS_SHARE_OF_PEAK < median + PALER_MIN_DEVIATIONS * deviation:
        return []
    threshold = share_of_peak + (1 - stain.NUCLEUS_SHARE_OF_PEAK) * max(0.0, median)
    least = max(threshold, min(PALER_MIN_TO_FIRST * image.threshold, median + PALER_MIN_DEVIATIONS * deviation))
    nuclei = [n for n in _nuclei_above(nuclear, threshold, image) if n.hull_mean >= threshold and n.mean >= least]
    large = [n for n in nuclei if n.radius >= PALER_MIN_NUCLEUS_TO_RED_CELL * unit]
    red_cell = median_density(image.density, red_cells)
    unlike = [n for n in large if _hue_distance(n, image.density, red_cell) > MIN_HUE_DISTANCE and _is_denser(n, image.density, red_cell)]
    return [Candidate(n, _confidence(n, unit, threshold)) for n in unlike]


def _is_denser(nucleus: Nucleus, density: stain.Float, red_cell: stain.Float) -> bool:
    median = np.median(density[nucleus.window][nucleus.mask], axis=0)
    return bool(median.sum() > PALER_MIN_DENSITY * red_cell.sum())


def _far_from(nuclei: list[Nucleus], shape: tuple[int, ...], reach: float) -> Mask:
    """Mark pixels farther than ``reach`` px from the hull of every nucleus."""
    taken = np.zeros(shape, bool)
    for nucleus in nuclei:
        taken[nucleus.window] |= stain.nucleus_core(nucleus.mask)
    return stain.distance_to(taken) > reach if taken.any() else ~taken


def _large_and_violet(found: list[Nucleus], unit: float | None, least_mean: float) -> list[Nucleus]:
    if not found:
        return []
    least = 0.3 * max(n.radius for n in found) if unit is None else MIN_NUCLEUS_TO_RED_CELL * unit
    return [n for n in found if n.radius >= max(least, 3.0) and n.mean >= least_mean]


def _without_red_cell_overlaps(nuclei: list[Nucleus], image: StainedImage) -> list[Nucleus]:
    pale = [n for n in nuclei if n.mean < OVERLAP_MAX_VIOLET]
    if not pale or not image.red_cells.any():
        return nuclei
    red_cell = median_density(image.density, image.red_cells)
    medians = np.array([np.median(image.density[n.window][n.mask], axis=0) for n in pale], np.float32)
    overlaps = {id(n) for n, d in zip(pale, stain.hue_distance(medians, red_cell), strict=True) if d < OVERLAP_MAX_HUE_DISTANCE}
    return [n for n in nuclei if id(n) not in overlaps]


def _confidence(nucleus: Nucleus, unit: float | None, threshold: float) -> float:
    """Product of contrast, fullness of the hull and size, each 0..1."""
    contrast = np.clip((nucleus.mean / threshold - 0.8) / 0.8, 0.0, 1.0)
    fullness = np.clip(nucleus.hull_mean / (1.2 * threshold), 0.0, 1.0)
    size = 1.0 if unit is None else min(1.0, nucleus.radius / unit)
    return round(float(contrast * fullness * size), 4)
