"""Fit the focus parameters of a release on training patients: when to sharpen, when to refuse.

An enlarged cell scores higher than the same cell seen closer, so both numbers are fitted at several upscaling
factors, on those of the cells that are large enough, reduced before registration until they need that factor. At the
smallest factors only the largest cells qualify (0.35: about one in fifteen of ``aml_cells``), so those numbers are the least
sure; a factor for which hardly any cell is large enough is left out:

- threshold: the 75th percentile of the scores at that factor (the blurriest quarter is sharpened);
- limit: the median score of the same cells blurred by a Gaussian of ``BLUR_TO_RADIUS`` radii, at which chromatin can
  no longer be told, but never below the 99th percentile of the unblurred scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.common.errors import DomainError
from services.common.image_codec import decode_image
from services.patching.cells import LocatedCell, central_cell, locate_cells
from services.preprocessing.focus import MAX_SCORE, focus_score
from services.preprocessing.legacy import register_legacy, short_axis
from services.preprocessing.registration import RELATIVE_RADIUS, RegisteredCell, register
from services.preprocessing.unsharpening import FocusParameters
from training.crops.making import in_processes
from training.crops.threshold_tuning import tune_threshold
from training.datasets.dataset import LabelledImage
from training.errors import DatasetError

Bytes = NDArray[np.uint8]
UPSCALE_FACTORS: Final = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0)
BLUR_TO_RADIUS: Final = 0.06
_THRESHOLD_PERCENTILE: Final = 75.0
_SHARP_PERCENTILE: Final = 99.0
_MIN_SHARE: Final = 0.01
"""Least share of the cells that must be large enough for an upscaling factor to be fitted."""


def fit_focus_parameters(images: Sequence[LabelledImage], side: int) -> FocusParameters:
    """Fit thresholds and limits.

    Args:
        images: single-cell images of training patients; a few hundred are enough.
        side: side of a registered cell in px.

    Returns:
        Parameters at the upscaling factors for which cells are large enough; beyond them those of the nearest hold.

    Raises:
        DatasetError: no cell is found, or none is large enough to be judged.
    """
    rows = [r for r in in_processes(_score_at_factors, [(str(c.path), side) for c in images], "focus scores") if r is not None]
    if not rows:
        raise DatasetError(f"No cell was found in any of {len(images)} images, such as {images[0].path}; `dl4all cells IMAGE` shows what is located.")
    table = np.array(rows, np.float64)
    known = np.isfinite(table[:, 0]).mean(axis=0) >= _MIN_SHARE
    if not known.any():
        raise DatasetError(f"All {len(rows)} cells are too small for crops of {side} px: more than twofold enlargement is never judged.")
    sharp, blurred = table[:, 0, known], table[:, 1, known]
    thresholds = np.nanpercentile(sharp, _THRESHOLD_PERCENTILE, axis=0)
    limits = np.maximum(np.nanmedian(blurred, axis=0), np.nanpercentile(sharp, _SHARP_PERCENTILE, axis=0))
    rounded = [tuple(float(round(v, 3)) for v in values) for values in (thresholds, limits)]
    return FocusParameters(tuple(float(f) for f in np.array(UPSCALE_FACTORS)[known]), rounded[0], rounded[1])


def with_tuned_threshold(fitted: FocusParameters, images: Sequence[LabelledImage], side: int, *, legacy: bool = False) -> FocusParameters:
    """Move the thresholds so that cells of the usual upscaling factor get the tuned one; how it changes with the factor stays.

    Args:
        fitted: from ``fit_focus_parameters``.
        images: single-cell images of training patients, blasts and normal cells.
        side: side of a registered cell in px.
        legacy: as the paper's program: a neighbour may be of the same patient, and the last radius is kept if none suffices.
    """
    found = [
        (image, cell) for image, cell in zip(images, in_processes(_register, [(str(i.path), side) for i in images], "cells"), strict=True) if cell
    ]
    crops = [cell.pixels for _, cell in found]
    labels = np.array([image.is_blast for image, _ in found], np.int64)
    groups = np.array([f"{i}" if legacy else image.group for i, (image, _) in enumerate(found)])
    tuning = tune_threshold(crops, labels, groups, legacy=legacy)
    shift = tuning.threshold - fitted.threshold(float(np.median([cell.upscale_factor for _, cell in found])))
    moved = tuple(round(min(t + shift, limit), 3) for t, limit in zip(fitted.thresholds, fitted.limits, strict=True))
    return replace(fitted, thresholds=moved)


def fit_legacy_threshold(images: Sequence[LabelledImage], side: int, *, tuned: bool) -> FocusParameters:
    """The one threshold of the paper's program for crops that are cut as it cuts them; nothing is refused.

    Args:
        images: single-cell images of training patients, blasts and normal cells.
        side: side of a crop in px.
        tuned: choose it as the program does, instead of sharpening the blurriest quarter.

    Raises:
        DatasetError: the rule drops every cell.
    """
    made = in_processes(_register_as_legacy, [(str(i.path), side) for i in images], "cells")
    found = [(image, crop) for image, crop in zip(images, made, strict=True) if crop is not None]
    if not found:
        raise DatasetError("No cell fits into its image by the rule of legacy_sharpened; use registered_sharpened.")
    crops = [crop for _, crop in found]
    if not tuned:
        threshold = float(np.percentile([focus_score(crop) for crop in crops], _THRESHOLD_PERCENTILE))
    else:
        labels = np.array([image.is_blast for image, _ in found], np.int64)
        threshold = tune_threshold(crops, labels, np.array([str(i) for i in range(len(found))]), legacy=True).threshold
    return FocusParameters((1.0,), (round(threshold, 3),), (MAX_SCORE,))


def _register_as_legacy(job: tuple[str, int]) -> Bytes | None:
    path, side = job
    found = _located(path)
    if found is None or found[1].mask is None:
        return None
    return register_legacy(found[0], short_axis(found[1].mask), side)


def _located(path: str) -> tuple[Bytes, LocatedCell] | None:
    """An image and the cell that it means; None where it shows none or cannot be read, which ``prepare`` tells of every image."""
    try:
        rgb = decode_image(Path(path).read_bytes()).pixels
    except (DomainError, OSError):
        return None
    cell = central_cell(locate_cells(rgb).cells, *rgb.shape[:2])
    return None if cell is None else (rgb, cell)


def _register(job: tuple[str, int]) -> RegisteredCell | None:
    path, side = job
    found = _located(path)
    if found is None:
        return None
    rgb, cell = found
    return register(rgb, cell.center_x, cell.center_y, cell.radius, side)


def _score_at_factors(job: tuple[str, int]) -> list[list[float]] | None:
    path, side = job
    found = _located(path)
    if found is None:
        return None
    rgb, cell = found
    blurred = cv2.GaussianBlur(rgb, (0, 0), BLUR_TO_RADIUS * cell.radius)
    images = (rgb, np.asarray(blurred, np.uint8))
    return [[_score_at(image, cell.center_x, cell.center_y, cell.radius, side, f) for f in UPSCALE_FACTORS] for image in images]


def _score_at(rgb: np.ndarray, x: float, y: float, radius: float, side: int, factor: float) -> float:
    """Focus score after reduction to the size that needs ``factor``; NaN where that would enlarge the image."""
    scale = RELATIVE_RADIUS * side / factor / radius
    if scale > 1.05:
        return float("nan")
    size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
    reduced = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
    scale_x, scale_y = size[0] / rgb.shape[1], size[1] / rgb.shape[0]
    registered = register(reduced, (x + 0.5) * scale_x - 0.5, (y + 0.5) * scale_y - 0.5, radius * scale, side)
    return focus_score(registered.pixels)
