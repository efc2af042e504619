"""Tests of exact search against brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest

from services.common.errors import ConfigurationError
from services.retrieval.neighbours import Float, unit
from services.retrieval.search import ExactSearch


def _vectors(count: int, dimension: int, seed: int) -> Float:
    return unit(np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32))


@pytest.mark.parametrize(("queries", "references", "dimension", "k"), [(1, 1, 4, 1), (7, 50, 8, 5), (32, 600, 64, 20), (3, 10, 2, 10)])
def test_nearest_is_exact(queries: int, references: int, dimension: int, k: int) -> None:
    q, r = _vectors(queries, dimension, 1), _vectors(references, dimension, 2)
    indices, distances = ExactSearch(r).nearest(q, k)
    assert indices.shape == distances.shape == (queries, k)
    assert indices.dtype == np.int64
    assert distances.dtype == np.float32
    for i in range(queries):
        true = [math.dist(q[i].tolist(), r[j].tolist()) for j in range(references)]
        np.testing.assert_allclose(distances[i], sorted(true)[:k], atol=2e-3)
        np.testing.assert_allclose([true[j] for j in indices[i]], distances[i], atol=2e-3)
        assert len(set(indices[i].tolist())) == k
        assert (np.diff(distances[i]) >= 0).all()


def test_k_is_at_most_the_number_of_references() -> None:
    indices, distances = ExactSearch(_vectors(3, 4, 2)).nearest(_vectors(2, 4, 1), 10)
    assert indices.shape == distances.shape == (2, 3)


def test_ties_go_by_index() -> None:
    axes = np.eye(4, dtype=np.float32)
    references = np.vstack([axes, axes, -axes])
    indices, distances = ExactSearch(references).nearest(axes[:1], 8)
    np.testing.assert_array_equal(indices[0], [0, 4, 1, 2, 3, 5, 6, 7])
    np.testing.assert_allclose(distances[0], [0, 0, *[math.sqrt(2)] * 6], atol=1e-6)


def test_a_known_cell_finds_itself_and_its_opposite_last() -> None:
    references = np.vstack([_vectors(20, 16, 3), -_vectors(1, 16, 4)])
    indices, distances = ExactSearch(references).nearest(_vectors(1, 16, 4), 21)
    assert indices[0, -1] == 20
    assert distances[0, -1] == pytest.approx(2.0, abs=1e-3)
    assert ExactSearch(references).nearest(references[7:8], 1)[0][0, 0] == 7


def test_a_gpu_that_is_not_there_is_told() -> None:
    with pytest.raises(ConfigurationError) as caught:
        ExactSearch(_vectors(3, 4, 2), gpu=True)
    assert caught.value.reason == "GPU_UNAVAILABLE"
