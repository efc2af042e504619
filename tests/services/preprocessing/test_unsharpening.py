"""Tests of adaptive unsharpening."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from services.common.phantom import CellKind, single_cell
from services.preprocessing.focus import focus_score
from services.preprocessing.unsharpening import MAX_UPSCALE, RADII, FocusParameters, QualityReason, sharpen_adaptively, unsharp_mask
from tests.benchmarks.preprocessing import soak
from tests.plain_unsharpening import plain_radius, plain_unsharp_mask

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
    # From the original, never cumulative: exactly the result of this one radius.
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


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0, 8.5, 17.0])
def test_the_mask_is_that_of_the_definition(sigma: float) -> None:
    image = _cell(side=200)
    difference = np.abs(unsharp_mask(image, sigma).astype(int) - plain_unsharp_mask(image, sigma))
    assert difference.max() <= 1
    assert np.mean(difference > 0) < 0.01


def test_mask_sharpens_lightness_and_keeps_a_flat_image() -> None:
    image = _cell()
    assert focus_score(unsharp_mask(image, 1.0)) < focus_score(image)
    flat = np.full((64, 64, 3), (200, 150, 190), np.uint8)
    np.testing.assert_array_equal(unsharp_mask(flat, 3.0), flat)
    assert unsharp_mask(image, 1.0, amount=0.0).astype(int) == pytest.approx(image.astype(int), abs=1)


def _threshold_between(image: Bytes, share: float) -> float:
    """A threshold between the scores of the image as it is and after the best radius."""
    scores = [focus_score(image), *(focus_score(unsharp_mask(image, radius * image.shape[0] / 256)) for radius in RADII)]
    return scores[0] + share * (min(scores) - scores[0])


@pytest.mark.slow
def test_the_radius_is_that_of_the_plain_reference() -> None:
    cases = [(_cell(sigma, 96, seed), share) for seed in range(10) for sigma in (0.8, 1.6) for share in (0.2, 0.5, 0.8, 0.95, 1.2)]
    chosen = []
    for image, share in cases:
        threshold = _threshold_between(image, share)
        chosen.append((sharpen_adaptively(image, 1.0, _parameters(threshold)).unsharp_radius, plain_radius(image, threshold)))
    assert len({ours for ours, _ in chosen}) > 3
    assert np.mean([ours == plain for ours, plain in chosen]) >= 0.99


@pytest.mark.slow
@pytest.mark.shared_data
def test_the_radius_of_real_cells_is_that_of_the_plain_reference(shared_data: Path) -> None:
    images = [np.asarray(Image.open(path).convert("RGB")) for path in sorted((shared_data / "aml_cells").rglob("*.jp*g"))[::160]]
    chosen = [(sharpen_adaptively(image, 1.0, _parameters(t)).unsharp_radius, plain_radius(image, t)) for image in images for t in (6.6, 7.1, 7.6)]
    assert len(chosen) > 100
    assert len({ours for ours, _ in chosen}) > 2
    assert np.mean([ours == plain for ours, plain in chosen]) >= 0.99


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_flips_and_turns_leave_score_and_radius(share: float) -> None:
    image = _cell(side=150)
    parameters = _parameters(_threshold_between(image, share) + 1e-3)
    straight = sharpen_adaptively(image, 1.0, parameters)
    assert straight.unsharp_radius > 0
    for turned in (image[::-1], image[:, ::-1], np.rot90(image), np.rot90(image, 2)):
        result = sharpen_adaptively(np.ascontiguousarray(turned), 1.0, parameters)
        assert result.unsharp_radius == straight.unsharp_radius
        assert (result.focus_before, result.focus_after) == pytest.approx((straight.focus_before, straight.focus_after), abs=1e-3)


@pytest.mark.parametrize("sigma", [1.5, 2.0, 3.0])
def test_sharpening_a_blurred_copy_brings_its_score_nearer_to_the_original(sigma: float) -> None:
    sharp = _cell(0.5, 200)
    blurred = np.asarray(cv2.GaussianBlur(sharp, (0, 0), sigma), np.uint8)
    threshold = 0.5 * (focus_score(sharp) + _threshold_between(blurred, 0.9))
    before, after = focus_score(blurred), sharpen_adaptively(blurred, 1.0, _parameters(max(threshold, _threshold_between(blurred, 0.95)))).focus_after
    assert focus_score(sharp) < after < before


@pytest.mark.parametrize("radius", RADII)
def test_halo_of_an_edge_is_bounded(radius: int) -> None:
    """Of a step in L*, an unsharp mask overshoots by at most half the amount on either side: 40 % of the step."""
    low, high = 90, 150
    step = np.repeat(np.where(np.arange(200) < 100, low, high)[None, :, None], 200, axis=0).repeat(3, axis=2).astype(np.uint8)
    lightness = [cv2.cvtColor(i.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)[..., 0] for i in (step, unsharp_mask(step, radius))]
    height = float(lightness[0].max() - lightness[0].min())
    over = float(lightness[1].max() - lightness[0].max()) / height
    under = float(lightness[0].min() - lightness[1].min()) / height
    assert 0.1 < over < 0.42
    assert 0.1 < under < 0.42


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_crops() -> None:
    found = re.search(r"peak memory (\d+) MiB after a tenth of them, (\d+) MiB at the end", soak(2000, side=96))
    assert found is not None
    assert int(found[2]) - int(found[1]) <= 8
