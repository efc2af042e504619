"""The working image has one scale and one light, whatever the image had."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from services.patching.working_image import BACKGROUND, MULTIPLE, RED_CELL_RADIUS, evened, scaled, working_image


def _disk(side: int, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side]
    inside = np.hypot(rows - side / 2, columns - side / 2) <= radius
    return np.where(inside[..., None], np.array([120, 60, 140], np.uint8), np.uint8(200)).astype(np.uint8)


@pytest.mark.parametrize("radius", [5.0, 8.0, 20.0, 47.3])
def test_red_cells_have_one_radius(radius: float) -> None:
    side = round(12 * radius)
    seen = working_image(_disk(side, radius), np.full((4, 4, 3), 200.0, np.float32), radius)
    area = (seen.pixels[: seen.height, : seen.width, 1] < 150).sum()
    assert np.sqrt(area / np.pi) == pytest.approx(RED_CELL_RADIUS, rel=0.06)
    factor = max(1, int(radius // RED_CELL_RADIUS))
    assert (seen.step_x * seen.width, seen.step_y * seen.height) == pytest.approx((side - side % factor,) * 2)


def test_the_background_has_one_value_in_any_light() -> None:
    slope = np.linspace(90, 240, 120, dtype=np.float32)
    light = np.broadcast_to(slope[None, :, None] * np.array([1.0, 0.9, 0.7], np.float32), (100, 120, 3)).copy()
    flat = evened(light.astype(np.uint8), light)
    assert np.abs(flat.astype(int) - BACKGROUND).max() <= 3


def test_sides_are_filled_up_with_background() -> None:
    seen = working_image(_disk(101, 20), np.full((2, 2, 3), 200.0, np.float32), 8.0)
    assert all(side % MULTIPLE == 0 for side in seen.pixels.shape[:2])
    assert (seen.pixels[seen.height :] == BACKGROUND).all()
    assert (seen.pixels[:, seen.width :] == BACKGROUND).all()


def test_what_is_no_picture_becomes_background() -> None:
    outside = np.zeros((10, 10), bool)
    outside[:, :5] = True
    seen = working_image(_disk(100, 40), np.full((2, 2, 3), 200.0, np.float32), RED_CELL_RADIUS, outside)
    assert (seen.pixels[:100, :49] == BACKGROUND).all()
    assert (seen.pixels[50, 52:60] != BACKGROUND).any()


def test_no_side_vanishes() -> None:
    assert scaled(3, 100.0) == MULTIPLE
    assert cv2.resize(np.zeros((3, 3), np.uint8), (scaled(3, 100.0),) * 2).shape == (8, 8)
