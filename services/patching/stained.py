"""Measurements on a working copy of an image before nuclei are chosen: densities, violet index, threshold and scale."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.patching import stain
from services.patching.light import background_light
from services.patching.scale import red_cell_scale
from services.patching.unreadable import unreadable

Bytes = NDArray[np.uint8]
Mask = NDArray[np.bool_]

RED_CELL_MICRONS: Final = 3.75
"""Radius of a red cell, half of 7.5 micrometres."""
MANY_RED_CELLS: Final = 14.0
"""An image whose shorter side is this many red-cell radii long is a field; published crops of one cell have 7..11."""

_LEAST_INSIDE: Final = 0.01
STATISTICS_SAMPLES: Final = 60_000
"""Number of pixels that suffices for the median of the red cells."""


@dataclass(frozen=True, eq=False)
class StainedImage:
    """Measured on the working copy; the maps are float32 or bool (H, W).

    Attributes:
        light: of the background, float32 (H, W, 3).
        density: optical density, float32 (H, W, 3).
        foreground: pixels that absorb light, holes of red cells filled.
        depth, peaks_of_depth: ``stain.distance_peaks`` of the foreground.
        violet: violet index, smoothed by ``sigma`` px.
        sigma: the smoothing, about an eighth of a red-cell radius.
        threshold: violet index above which a pixel belongs to a nucleus.
        seen: radius of the red cells in px as first seen, nucleated cells among them; None where there are too few.
        given: radius of the red cells in px by the scale that the caller gave; None where none was given.
        ink: share 0..1 of a field under ink, pointers and text.
        outside: pixels of a field without a picture; None where there are none.
    """

    light: stain.Float
    density: stain.Float
    foreground: Mask
    depth: stain.Float
    peaks_of_depth: Mask
    violet: stain.Float
    sigma: float
    threshold: float
    seen: float | None
    given: float | None
    ink: float = 0.0
    outside: Mask | None = None

    @classmethod
    def of(
        cls, rgb: Bytes, microns_per_pixel: float | None, *, is_field: bool, threshold: float | None = None, light: stain.Float | None = None
    ) -> StainedImage:
        """Measure an image.

        Args:
            rgb: uint8 (H, W, 3).
            microns_per_pixel: if known.
            is_field: known to show many cells, however small it is.
            threshold: violet index of nuclei, where it is known from elsewhere; else a share of the image's peak.
            light: of the background, float32 (h, w, 3) of any size, where it is known from a copy of another size.
        """
        is_lit = light is not None
        light = background_light(rgb, is_field=is_field) if light is None else np.asarray(cv2.resize(light, rgb.shape[1::-1]), np.float32)
        density = stain.optical_density(rgb, light)
        covered = unreadable(rgb, density) if is_field else None
        if covered is not None:
            light = light if is_lit else background_light(covered.rgb, is_field=is_field, without=covered.mask)
            density = stain.optical_density(covered.rgb, light)
            density[covered.mask] = 0.0
        foreground = stain.foreground_mask(density)
        depth, peaks_of_depth = stain.distance_peaks(foreground)
        seen = stain.red_cell_radius(depth, peaks_of_depth)
        given = RED_CELL_MICRONS / microns_per_pixel if microns_per_pixel else None
        smooth, sigma, found = _violet(density, given or seen, threshold)
        ink, outside = (0.0, None) if covered is None else (covered.ink, covered.mask)
        return cls(light, density, foreground, depth, peaks_of_depth, smooth, sigma, found, seen, given, ink, outside)

    def rescaled(self, microns_per_pixel: float | None) -> StainedImage:
        """The same image as ``of`` measures it with this scale; itself where there is none."""
        if not microns_per_pixel:
            return self
        given = RED_CELL_MICRONS / microns_per_pixel
        smooth, sigma, threshold = _violet(self.density, given, None)
        return replace(self, violet=smooth, sigma=sigma, threshold=threshold, given=given)

    @cached_property
    def first_unit(self) -> float | None:
        """Radius of the red cells in px, as given or first seen."""
        return self.given or self.seen

    @cached_property
    def unit(self) -> float | None:
        """Radius of the red cells in px, as given or measured where no nucleus is."""
        return self.given or red_cell_scale(self.depth, self.peaks_of_depth, self.violet > self.threshold, self.seen)

    @cached_property
    def shows_many_red_cells(self) -> bool:
        """Whether it is too wide for a crop around one cell."""
        return self.first_unit is not None and min(self.violet.shape) >= MANY_RED_CELLS * self.first_unit

    @cached_property
    def covered_share(self) -> float:
        """Share 0..1 of the picture that cells of any kind cover."""
        return float(self.foreground.mean()) / self._inside

    @cached_property
    def ink_share(self) -> float:
        """Share 0..1 of the picture under ink, pointers and text."""
        return self.ink / self._inside

    @cached_property
    def _inside(self) -> float:
        """Share of the copy that shows a picture."""
        return 1.0 if self.outside is None else max(1.0 - float(self.outside.mean()), _LEAST_INSIDE)

    @cached_property
    def absorbs(self) -> Mask:
        """Pixels that are not background."""
        return stain.total_density(self.density) > stain.ABSORBS

    @cached_property
    def green_over_blue(self) -> stain.Float:
        """``2 (OD_green - OD_blue)``, smoothed: the violet index without its deduction for blue, float32 (H, W)."""
        _, green, blue = cv2.split(self.density)
        return np.asarray(cv2.GaussianBlur(2.0 * (green - blue), (0, 0), self.sigma), np.float32)

    @cached_property
    def red_cells(self) -> Mask:
        """Pixels that absorb light and are not nucleus: mostly red cells, also cytoplasm."""
        return np.asarray(self.foreground & (self.violet < self.threshold), bool)


def _violet(density: stain.Float, unit: float | None, threshold: float | None) -> tuple[stain.Float, float, float]:
    """The violet index, smoothed by an eighth of the unit; the smoothing in px; and the threshold of nuclei where it is not known."""
    violet = stain.violet_index(density)
    sigma = float(np.clip(0.01 * min(violet.shape) if unit is None else 0.12 * unit, 1.0, 3.0))
    smooth = np.asarray(cv2.GaussianBlur(violet, (0, 0), sigma), np.float32)
    peaks = smooth if unit else np.asarray(cv2.GaussianBlur(smooth, (0, 0), 1.5 * sigma), np.float32)
    return smooth, sigma, threshold or stain.nucleus_threshold(peaks, small_nucleus_area(unit, smooth.size))


def median_density(density: stain.Float, mask: Mask) -> stain.Float:
    """Median optical density of the marked pixels, at least one, float32 (3,)."""
    return np.asarray(np.median(density.reshape(-1, 3)[_sample(mask)], axis=0), np.float32)


def median_and_deviation(values: stain.Float, mask: Mask) -> tuple[float, float]:
    """Median of the marked pixels, at least one, and how far their 84th percentile lies above."""
    median, high = np.percentile(values.ravel()[_sample(mask)], (50, 84))
    return float(median), float(high - median)


def _sample(mask: Mask) -> NDArray[np.int_]:
    """Flat indices of the marked pixels, regularly thinned out where there are many."""
    marked = np.flatnonzero(mask)
    return marked[:: max(1, marked.size // STATISTICS_SAMPLES)]


def small_nucleus_area(unit: float | None, pixels: int) -> float:
    """Area in px of a small nucleus, by the radius of the red cells or else as a share of the image."""
    return 0.005 * pixels if unit is None else math.pi * (0.7 * unit) ** 2
