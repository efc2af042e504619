"""Tests of PCANet."""

from __future__ import annotations

import numpy as np
import pytest

from training.crops.pcanet import BLOCK, WINDOW, features, filters, nearest_neighbour_accuracy


def _waves(count: int = 4, side: int = 46) -> np.ndarray:
    rows, columns = np.indices((side, side))
    return np.stack([np.sin(rows * (0.2 + 0.1 * i)) + 0.2 * np.cos(columns * 0.3) for i in range(count)]).astype(np.float32)


def test_filters_are_orthonormal_and_without_mean() -> None:
    found = filters(_waves()).reshape(-1, WINDOW**2)
    np.testing.assert_allclose(found @ found.T, np.eye(len(found)), atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-3)


def test_one_direction_of_change_needs_few_filters() -> None:
    rows = np.indices((46, 46))[0]
    assert len(filters(np.sin(rows * 0.5).astype(np.float32)[None])) <= 2


def test_histograms_by_hand() -> None:
    """Two filters that see brighter-to-the-right and brighter-below; on a ramp up and to the right the first fires inside, the second never."""
    kernels = np.zeros((2, WINDOW, WINDOW), np.float32)
    kernels[0, 7, 14], kernels[0, 7, 0] = 1, -1
    kernels[1, 14, 7], kernels[1, 0, 7] = 1, -1
    rows, columns = np.indices((3 * BLOCK, 3 * BLOCK))
    image = (100.0 + columns - 0.5 * rows).astype(np.float32)
    blocks = features(image[None], kernels)[0].reshape(9, 4)
    np.testing.assert_allclose(blocks.sum(axis=1), 4)
    np.testing.assert_allclose(blocks[4], [0, 0, 4, 0])


def test_the_neighbour_is_of_another_group() -> None:
    vectors = np.array([[0.0], [0.1], [5.0], [5.1], [0.3], [5.3]], np.float32)
    labels = np.array([0, 0, 1, 1, 1, 0])
    assert nearest_neighbour_accuracy(vectors, labels, np.array(list("aabbcd"))) == pytest.approx(0.0)
    assert nearest_neighbour_accuracy(vectors, labels, np.array(list("abcdef"))) == pytest.approx(4 / 6)


def test_one_group_has_no_neighbours() -> None:
    with pytest.raises(ValueError, match="two groups"):
        nearest_neighbour_accuracy(np.zeros((3, 2), np.float32), np.array([0, 1, 0]), np.array(["a"] * 3))
