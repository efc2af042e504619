"""Adaptive unsharpening: sharpen a registered cell only as far as its focus score needs.

Source: Genovese et al., "Acute lymphoblastic leukemia detection based on adaptive unsharpening and deep learning"
(ICASSP 2021). Ours differs in two points: the threshold and the limit are functions of the upscaling factor, because an enlarged cell scores higher
however sharp its image is; and a cell that is enlarged more than twofold is refused instead of sharpened.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.preprocessing.cielab import BLACK, from_roots, to_roots
from services.preprocessing.focus import focus_score

Bytes = NDArray[np.uint8]
Float = NDArray[np.float32]

AMOUNT: Final = 0.8
RADII: Final = (1, 3, 5, 7, 9, 11, 13, 15, 17)
"""Unsharp radii (standard deviations) in px of a square of ``RADII_SIDE`` px; scaled with the side."""
RADII_SIDE: Final = 256
MAX_UPSCALE: Final = 2.0


class QualityReason(StrEnum):
    """Why a cell's image is poor."""

    LOW_RESOLUTION = "LOW_RESOLUTION"
    POOR_FOCUS = "POOR_FOCUS"
    SHARPENING_FAILED = "SHARPENING_FAILED"


@dataclass(frozen=True)
class FocusParameters:
    """Preprocessing parameters of a release, as functions of the upscaling factor (linear between the knots).

    Attributes:
        upscale_factors: knots, ascending.
        thresholds: focus score per knot above which a cell is sharpened.
        limits: focus score per knot above which a cell is not accepted, sharpened or not.
    """

    upscale_factors: tuple[float, ...]
    thresholds: tuple[float, ...]
    limits: tuple[float, ...]

    def threshold(self, upscale_factor: float) -> float:
        """Score above which a cell of this upscaling factor is sharpened."""
        return float(np.interp(upscale_factor, self.upscale_factors, self.thresholds))

    def limit(self, upscale_factor: float) -> float:
        """Score above which a cell of this upscaling factor is not accepted."""
        return float(np.interp(upscale_factor, self.upscale_factors, self.limits))


@dataclass(frozen=True)
class SharpenedCell:
    """Result of adaptive unsharpening.

    Attributes:
        pixels: uint8 (side, side, 3); the input itself where ``unsharp_radius`` is 0.
        focus_before, focus_after: focus scores, higher is blurrier.
        unsharp_radius: 0 (not sharpened) or one of ``RADII``.
        accepted: whether a network may judge this cell.
        reasons: what is poor; SHARPENING_FAILED alone does not refuse a cell.
    """

    pixels: Bytes
    focus_before: float
    focus_after: float
    unsharp_radius: int
    accepted: bool
    reasons: tuple[QualityReason, ...]


def unsharp_mask(rgb: Bytes, sigma: float, amount: float = AMOUNT) -> Bytes:
    """Sharpen the lightness L* only.

    Args:
        rgb: uint8 (H, W, 3).
        sigma: standard deviation of the Gaussian in px, above 0; window half-width ceil(2 sigma), border replicated.
        amount: weight of ``L - G * L``.
    """
    return _sharpen_lightness(to_roots(rgb), sigma, amount)


def _sharpen_lightness(roots: Float, sigma: float, amount: float) -> Bytes:
    lightness = np.ascontiguousarray(roots[..., 1])
    width = 2 * math.ceil(2 * sigma) + 1
    blurred = cv2.GaussianBlur(lightness, (width, width), sigma, borderType=cv2.BORDER_REPLICATE)
    sharpened = np.clip(cv2.addWeighted(lightness, 1.0 + amount, blurred, -amount, 0.0), BLACK, 1.0)
    change = sharpened - lightness
    return from_roots(roots + cv2.merge((change, change, change)))


def sharpen_adaptively(rgb: Bytes, upscale_factor: float, parameters: FocusParameters) -> SharpenedCell:
    """Sharpen a registered cell with the smallest radius that brings its focus score down to the threshold.

    Each radius is applied to the original, never cumulatively. Where no radius reaches the threshold, the original is returned with
    SHARPENING_FAILED.

    Args:
        rgb: uint8 (side, side, 3), registered.
        upscale_factor: registered pixels per input pixel.
        parameters: thresholds and limits of the release.
    """
    before = focus_score(rgb)
    if upscale_factor > MAX_UPSCALE:
        return SharpenedCell(rgb, before, before, 0, False, (QualityReason.LOW_RESOLUTION,))
    limit = parameters.limit(upscale_factor)
    if before > limit:
        return SharpenedCell(rgb, before, before, 0, False, (QualityReason.POOR_FOCUS,))
    threshold = parameters.threshold(upscale_factor)
    if before <= threshold:
        return SharpenedCell(rgb, before, before, 0, True, ())
    roots = to_roots(rgb)
    for radius in RADII:
        sharpened = _sharpen_lightness(roots, radius * rgb.shape[0] / RADII_SIDE, AMOUNT)
        after = focus_score(sharpened)
        if after <= threshold:
            return SharpenedCell(sharpened, before, after, radius, True, ())
    return SharpenedCell(rgb, before, before, 0, True, (QualityReason.SHARPENING_FAILED,))
