"""Tests of adaptive unsharpening."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from services.common.phantom import CellKind, single_cell
from services.preprocessing.focus import focus_score
from services.preprocessing.unsharpening import MAX_UPSCALE, RADII, FocusParameters, QualityReason, sharpen_adaptively, unsharp_mask

Bytes = NDArray[np.uint8]


def _cell(sigma: float = 1.5, side: int = 128, seed: int = 4) -> Bytes:
    image = single_cell(seed, CellKind.BLAST, side=side, cell_radius=0.2 * side).image
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)


def _parameters(threshold: float, limit: float = 50.0) -> FocusParameters:
    return FocusParameters((1.0,), (threshold,), (limit,))


def test_thresholds_and_limits_are_interpolated() -> None:
    parameters = FocusParameters((0.5, 1.0, 2.0), (6.0, 7.0, 9.0), (8.0, 10.0, 11.0))
    assert [parameters.threshold(f) for f in (0.1, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)] == pytest.approx([6, 6, 6.5, 7, 8, 9, 9])
    assert [parameters.limit(f) for f in (0.1, 0.75, 1.25, 5.0)] == pytest.approx([8, 9, 10.25, 11])


def test_a_sharp_cell_is_left_alone() -> None:
    image = _cell()
    result = sharpen_adaptively(image, 1.0, _parameters(focus_score(image)))
    assert result.pixels is image
    assert (result.unsharp_radius, result.accepted, result.reasons) == (0, True, ())
    assert result.focus_before == result.focus_after == focus_score(image)


@pytest.mark.parametrize("side", [128, 256])
@pytest.mark.parametrize("index", [0, 2, 5])
def test_the_smallest_radius_that_suffices_is_used(side: int, index: int) -> None:
    image = _cell(side=side)
    by_radius = [unsharp_mask(image, radius * side / 256) for radius in RADII]
    scores = [focus_score(sharpened) for sharpened in by_radius]
    threshold = scores[index]
    first = next(i for i, score in enumerate(scores) if score <= threshold)
    assert focus_score(image) > threshold
    result = sharpen_adaptively(image, 1.0, _parameters(threshold))
    assert result.unsharp_radius == RADII[first]
    assert result.focus_before == focus_score(image)
    assert result.focus_after == scores[first] == focus_score(result.pixels)
    assert (result.accepted, result.reasons) == (True, ())
    # From the original, never cumulative: exactly what this one radius makes of it.
    np.testing.assert_array_equal(result.pixels, by_radius[first])


def test_where_no_radius_suffices_the_original_is_returned() -> None:
    image = _cell()
    result = sharpen_adaptively(image, 1.0, _parameters(1.0))
    assert result.pixels is image
    assert result.focus_after == result.focus_before == focus_score(image)
    assert (result.unsharp_radius, result.accepted, result.reasons) == (0, True, (QualityReason.SHARPENING_FAILED,))


def test_poor_focus_is_not_accepted_and_not_sharpened() -> None:
    image = _cell(4.0)
    score = focus_score(image)
    result = sharpen_adaptively(image, 1.0, _parameters(score - 0.5, score - 0.001))
    assert result.pixels is image
    assert (result.unsharp_radius, result.accepted, result.reasons) == (0, False, (QualityReason.POOR_FOCUS,))
    assert sharpen_adaptively(image, 1.0, _parameters(score - 0.5, score)).accepted


def test_low_resolution_is_not_accepted_however_sharp() -> None:
    image = _cell()
    result = sharpen_adaptively(image, MAX_UPSCALE + 0.001, _parameters(50.0))
    assert result.pixels is image
    assert (result.unsharp_radius, result.accepted, result.reasons) == (0, False, (QualityReason.LOW_RESOLUTION,))
    assert sharpen_adaptively(image, MAX_UPSCALE, _parameters(50.0)).accepted


def test_the_limit_of_the_upscale_factor_decides() -> None:
    image = _cell()
    score = focus_score(image)
    parameters = FocusParameters((0.5, 1.5), (0.0, 0.0), (score - 1, score + 1))
    assert not sharpen_adaptively(image, 0.9, parameters).accepted
    assert sharpen_adaptively(image, 1.1, parameters).accepted


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0, 8.5])
def test_mask_follows_its_formula(sigma: float) -> None:
    image = _cell()
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2Lab).astype(np.float64)
    half = int(np.ceil(2 * sigma))
    window = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * sigma**2))
    window /= window.sum()
    padded = np.pad(lab[..., 0], half, mode="edge")
    rows = np.apply_along_axis(np.convolve, 1, padded, window, mode="valid")
    blurred = np.apply_along_axis(np.convolve, 0, rows, window, mode="valid")
    lab[..., 0] = np.clip(1.8 * lab[..., 0] - 0.8 * blurred, 0, 100)
    expected = np.clip(cv2.cvtColor(lab.astype(np.float32), cv2.COLOR_Lab2RGB), 0, 1) * 255
    assert np.abs(unsharp_mask(image, sigma) - expected).max() <= 0.51


def test_mask_sharpens_lightness_and_keeps_a_flat_image() -> None:
    image = _cell()
    assert focus_score(unsharp_mask(image, 1.0)) < focus_score(image)
    flat = np.full((64, 64, 3), (200, 150, 190), np.uint8)
    np.testing.assert_array_equal(unsharp_mask(flat, 3.0), flat)
    assert unsharp_mask(image, 1.0, amount=0.0).astype(int) == pytest.approx(image.astype(int), abs=1)
