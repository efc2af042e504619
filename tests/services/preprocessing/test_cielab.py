"""Tests of CIELAB as its three roots."""

from __future__ import annotations

import numpy as np
import pytest

from services.preprocessing.cielab import BLACK, from_roots, to_roots


def test_every_colour_comes_back() -> None:
    levels = np.arange(0, 256, 3)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(len(levels), -1, 3).astype(np.uint8)
    difference = np.abs(from_roots(to_roots(colours)).astype(int) - colours)
    assert difference.max() <= 1
    assert np.mean(difference > 0) < 1e-3


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [((0, 0, 0), (0, 0, 0)), ((255, 255, 255), (100, 0, 0)), ((255, 0, 0), (53.24, 80.09, 67.20)), ((0, 0, 255), (32.30, 79.19, -107.86))],
)
def test_known_colours(rgb: tuple[int, int, int], lab: tuple[float, float, float]) -> None:
    x, y, z = to_roots(np.array([[rgb]], np.uint8))[0, 0]
    assert (116 * y - 16, 500 * (x - y), 200 * (y - z)) == pytest.approx(lab, abs=0.05)


def test_colours_outside_srgb_are_clipped() -> None:
    roots = to_roots(np.array([[(255, 40, 40), (10, 10, 200)]], np.uint8))
    assert from_roots(roots + np.float32(0.3)).max() == 255
    assert from_roots(np.full((1, 1, 3), BLACK, np.float32)).max() == 0
