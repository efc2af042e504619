"""Tests of neighbours and their vote."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from services.retrieval.neighbours import Float, distance_quantile, nearest, project, unit, vote


def _vectors(count: int, dimension: int, seed: int) -> Float:
    return unit(np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32))


def test_unit_length_and_zero() -> None:
    vectors = np.array([[3.0, 4.0], [0.0, 0.0], [0.0, -1e-3]], np.float32)
    np.testing.assert_allclose(unit(vectors), [[0.6, 0.8], [0, 0], [0, -1]], atol=1e-6)
    assert unit(vectors).dtype == np.float32


@pytest.mark.parametrize(("queries", "references", "dimension", "k"), [(1, 1, 4, 1), (7, 50, 8, 5), (32, 600, 64, 20), (3, 10, 2, 10)])
def test_nearest_is_exact(queries: int, references: int, dimension: int, k: int) -> None:
    q, r = _vectors(queries, dimension, 1), _vectors(references, dimension, 2)
    indices, distances = nearest(q, r, k)
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
    indices, distances = nearest(_vectors(2, 4, 1), _vectors(3, 4, 2), 10)
    assert indices.shape == distances.shape == (2, 3)


def test_ties_go_by_index() -> None:
    axes = np.eye(4, dtype=np.float32)
    references = np.vstack([axes, axes, -axes])
    indices, distances = nearest(axes[:1], references, 8)
    np.testing.assert_array_equal(indices[0], [0, 4, 1, 2, 3, 5, 6, 7])
    np.testing.assert_allclose(distances[0], [0, 0, *[math.sqrt(2)] * 6], atol=1e-6)


def test_a_known_cell_finds_itself_and_its_opposite_last() -> None:
    references = np.vstack([_vectors(20, 16, 3), -_vectors(1, 16, 4)])
    indices, distances = nearest(_vectors(1, 16, 4), references, 21)
    assert indices[0, -1] == 20
    assert distances[0, -1] == pytest.approx(2.0, abs=1e-3)
    assert nearest(references[7:8], references, 1)[0][0, 0] == 7


def test_vote_by_hand() -> None:
    distances = np.array([[0.1, 0.2, 0.5], [0.1, 0.2, 0.5], [0.3, 0.3, 0.6]], np.float32)
    is_blast = np.array([[True, False, False], [False, True, True], [True, False, True]])
    # Weights 10, 5, 2 twice; then 10/3, 10/3, 10/6.
    np.testing.assert_allclose(vote(distances, is_blast), [10 / 17, 7 / 17, 0.6], atol=1e-6)


def test_vote_of_identical_cells_is_finite() -> None:
    assert vote(np.zeros((1, 2), np.float32), np.array([[True, False]]))[0] == pytest.approx(0.5)
    # An identical cell weighs as one at a distance of a thousandth.
    found = vote(np.array([[0.0, 1.0]], np.float32), np.array([[True, False]]))[0]
    assert found == pytest.approx(1000 / 1001, abs=1e-6)


@given(hnp.arrays(np.float32, (3, 5), elements=st.floats(0, 2, width=32)), hnp.arrays(np.bool_, (3, 5)))
def test_votes_lie_in_range_and_classes_complement(distances: Float, is_blast: np.ndarray) -> None:
    votes = vote(distances, is_blast)
    assert ((votes >= 0) & (votes <= 1 + 1e-6)).all()
    np.testing.assert_allclose(votes + vote(distances, ~is_blast), 1, atol=1e-5)


def test_distance_quantile() -> None:
    calibration = np.array([0.1, 0.2, 0.4, 0.8, 1.6])
    found = [distance_quantile(d, calibration) for d in (0.0, 0.1, 0.15, 0.4, 1.2, 1.6, 2.0)]
    assert found == pytest.approx([0, 0, 0.125, 0.5, 0.875, 1, 1])


def test_project_by_hand() -> None:
    mean, axes = np.array([1.0, 1.0, 0.0], np.float32), np.array([[1.0, 0.0, 0.0], [0.0, 2.0, 1.0]], np.float32)
    np.testing.assert_allclose(project(np.array([[2.0, 3.0, 5.0], [1.0, 1.0, 0.0]], np.float32), mean, axes), [[1, 9], [0, 0]])
