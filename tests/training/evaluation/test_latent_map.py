"""Trustworthiness and continuity of maps whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.latent_map import intrusion, ranks

POINTS = np.random.default_rng(0).normal(size=(120, 2)).astype(np.float32)


def test_ranks_count_from_the_nearest() -> None:
    assert ranks(np.array([[0.0], [1.0], [3.0]], np.float32)).tolist() == [[0, 1, 2], [1, 0, 2], [2, 1, 0]]


def test_a_map_that_keeps_all_is_perfect_and_a_random_one_is_not() -> None:
    true = ranks(POINTS)
    assert intrusion(true, ranks(3.0 * POINTS + 1.0), 10) == 1.0
    shuffled = ranks(np.random.default_rng(1).permutation(POINTS))
    assert intrusion(true, shuffled, 10) == pytest.approx(0.5, abs=0.06)


def test_a_map_that_folds_is_not_trusted_but_tears_nothing() -> None:
    line = np.linspace(-1, 1, 101, dtype=np.float32)[:, None]
    true, folded = ranks(line), ranks(np.abs(line))
    assert intrusion(true, folded, 10) < 0.8
    assert intrusion(folded, true, 10) > 0.95


def test_a_hand_computed_case() -> None:
    """Of five points one neighbour each is seen; one of them is in truth the third: excess 2, scale 2 / (5 * 1 * (10 - 3 - 1))."""
    true = np.array([[0, 1, 2, 3, 4]] * 5)
    seen = true.copy()
    seen[0] = [0, 3, 2, 1, 4]
    assert intrusion(true, seen, 1) == pytest.approx(1 - 2 * 2 / 30)
