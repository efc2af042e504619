"""Tests of sewing pictures together: paths by hand, quilts of plain blocks, pasted cores."""

from __future__ import annotations

import numpy as np
import pytest

from training.datasets.quilting import least_path, paste, quilt


def test_the_least_path_by_hand() -> None:
    cost = np.array([[5, 1, 9], [5, 9, 1], [1, 9, 9], [1, 9, 9]], np.float32)
    assert least_path(cost).tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("seed", range(5))
def test_no_path_is_cheaper(seed: int) -> None:
    cost = np.random.default_rng(seed).random((5, 4)).astype(np.float32)

    def cheapest(row: int, column: int) -> float:
        rest = [cheapest(row + 1, c) for c in (column - 1, column, column + 1) if 0 <= c < 4] if row < 4 else [0.0]
        return float(cost[row, column]) + min(rest)

    path = least_path(cost)
    assert np.abs(np.diff(path)).max() <= 1
    assert cost[np.arange(5), path].sum() == pytest.approx(min(cheapest(0, c) for c in range(4)), rel=1e-5)


def test_a_quilt_of_one_colour_is_that_colour() -> None:
    blocks = np.full((3, 16, 16, 3), (200, 150, 120), np.uint8)
    found = quilt(blocks, 37, 50, 4, np.random.default_rng(0))
    assert found.shape == (37, 50, 3)
    assert (found == (200, 150, 120)).all()


def test_blocks_are_chosen_by_how_they_fit() -> None:
    """Dark and light blocks: a neighbour of another shade never fits better than one of the same."""
    shades = np.repeat(np.array([40, 220], np.uint8), 3)
    blocks = np.broadcast_to(shades[:, None, None, None], (6, 16, 16, 3)).copy()
    assert len(np.unique(quilt(blocks, 60, 60, 4, np.random.default_rng(1)))) == 1


def test_a_core_is_pasted_whole_and_far_from_it_nothing_changes() -> None:
    canvas = np.full((80, 90, 3), 100, np.uint8)
    piece = np.full((41, 41, 3), 200, np.uint8)
    core = np.hypot(*(np.mgrid[:41, :41] - 20)) <= 8
    pasted = paste(canvas, piece, core, 30, 20, 6)
    assert pasted[20:61, 30:71][core].all()
    assert (canvas[20:61, 30:71][np.hypot(*(np.mgrid[:41, :41] - 20)) <= 5] == 200).all()
    far = np.hypot(*(np.mgrid[:80, :90] - np.array([40, 50])[:, None, None])) > 22
    assert not pasted[far].any()
    assert (canvas[far] == 100).all()


@pytest.mark.parametrize(("left", "top"), [(-20, -20), (70, 60), (-20, 60)])
def test_what_sticks_out_is_cut_off(left: int, top: int) -> None:
    canvas = np.full((80, 90, 3), 100, np.uint8)
    core = np.hypot(*(np.mgrid[:41, :41] - 20)) <= 8
    pasted = paste(canvas, np.full((41, 41, 3), 200, np.uint8), core, left, top, 6)
    assert pasted.any()
    assert (canvas[pasted] > 100).any()


def test_a_piece_beside_the_canvas_changes_nothing() -> None:
    canvas = np.full((20, 20, 3), 100, np.uint8)
    core = np.zeros((9, 9), np.bool_)
    core[3:6, 3:6] = True
    assert not paste(canvas, np.zeros((9, 9, 3), np.uint8), core, 50, 0, 2).any()
    assert (canvas == 100).all()
