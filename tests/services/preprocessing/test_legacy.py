"""Tests of registration and sharpening as the paper's program does them."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from services.common.phantom import CellKind, single_cell
from services.preprocessing.focus import focus_score
from services.preprocessing.legacy import register_legacy, sharpen_legacy, short_axis
from services.preprocessing.unsharpening import RADII, unsharp_mask

Bytes = NDArray[np.uint8]


def _ramp(height: int, width: int) -> Bytes:
    rows, columns = np.indices((height, width))
    return np.stack([rows % 256, columns % 256, 0 * rows], axis=-1).astype(np.uint8)


def _span(square: Bytes) -> tuple[int, int]:
    return int(square[..., 0].min()), int(square[..., 0].max())


def test_the_short_axis_of_an_ellipse() -> None:
    mask = np.zeros((200, 220), np.uint8)
    cv2.ellipse(mask, (110, 90), (60, 40), 30, 0, 360, 1, cv2.FILLED)
    assert short_axis(mask > 0) == pytest.approx(80, abs=2)
    assert short_axis(np.zeros((20, 20), bool)) == 0.0


@pytest.mark.parametrize(("axis", "half"), [(100.0, 75), (169.0, 127), (170.0, 85), (200.0, 100), (253.0, 126)])
def test_big_cells_are_cropped_tight_and_small_ones_with_margin(axis: float, half: int) -> None:
    square = register_legacy(_ramp(257, 257), axis, 2 * half + 1)
    assert square is not None
    assert _span(square) == (127 - half, 127 + half)


@pytest.mark.parametrize("axis", [0.0, 0.4, 256.0, 400.0])
def test_what_does_not_fit_is_dropped(axis: float) -> None:
    assert register_legacy(_ramp(257, 257), axis, 256) is None


def test_images_need_not_be_square() -> None:
    square = register_legacy(_ramp(257, 253), 100.0, 151)
    assert square is not None
    assert (int(square[..., 1].min()), int(square[..., 1].max())) == (125 - 75, 125 + 75)


def test_the_last_radius_is_kept_where_none_suffices() -> None:
    image = cast(Bytes, cv2.GaussianBlur(single_cell(4, CellKind.BLAST, side=128, cell_radius=25).image, (0, 0), 1.5))
    by_radius = [unsharp_mask(image, radius / 2) for radius in RADII]
    scores = [focus_score(sharpened) for sharpened in by_radius]
    hopeless = sharpen_legacy(image, min(scores) - 1)
    assert hopeless.unsharp_radius == RADII[-1]
    np.testing.assert_array_equal(hopeless.pixels, by_radius[-1])
    assert sharpen_legacy(image, scores[1]).unsharp_radius == RADII[next(i for i, s in enumerate(scores) if s <= scores[1])]
    assert sharpen_legacy(image, focus_score(image)).unsharp_radius == 0
