"""Tests of the input of a network of patches."""

from __future__ import annotations

import numpy as np

from services.patching.grid import Patch
from services.patching.patch_input import patch_input


def test_the_square_and_nothing_else() -> None:
    field = np.zeros((300, 400, 3), np.uint8)
    field[20:148, 60:188] = (10, 200, 30)
    assert (patch_input(field, Patch(1, 60, 20, 128), 64) == (10, 200, 30)).all()
    assert (patch_input(field, Patch(1, 60, 20, 128), 128) == field[20:148, 60:188]).all()


def test_shrinking_averages_and_enlarging_interpolates() -> None:
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255
    field = np.repeat(board[:, :, None], 3, axis=2).astype(np.uint8)
    assert abs(patch_input(field, Patch(1, 0, 0, 64), 16).astype(int) - 127).max() <= 2
    assert patch_input(field, Patch(1, 8, 8, 32), 128).shape == (128, 128, 3)
