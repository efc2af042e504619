"""Tests of neighbours and their vote."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from services.retrieval.neighbours import Float, distance_quantile, legacy_vote, project, unit, vote


def _vectors(count: int, dimension: int, seed: int) -> Float:
    return unit(np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32))


def test_unit_length_and_zero() -> None:
    vectors = np.array([[3.0, 4.0], [0.0, 0.0], [0.0, -1e-3]], np.float32)
    np.testing.assert_allclose(unit(vectors), np.array([[0.6, 0.8], [0, 0], [0, -1]]), atol=1e-6)
    assert unit(vectors).dtype == np.float32


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


@pytest.mark.parametrize(
    ("neighbours", "elected"),
    [
        ("aab", "a"),
        ("aba", "a"),
        ("baa", "a"),
        ("abc", "c"),  # a leads, b takes the lead away, c is alone: the farthest wins
        ("cab", "b"),
        ("ab", "a"),
        ("abcc", "c"),
        ("abbc", "b"),
        ("aabbc", "c"),  # never verified: c is in the minority
        ("b", "b"),
    ],
)
def test_the_vote_of_the_paper(neighbours: str, elected: str) -> None:
    assert legacy_vote(np.array([list(neighbours)])).tolist() == [elected]


@given(hnp.arrays(np.bool_, st.tuples(st.integers(1, 6), st.sampled_from([1, 3, 5, 7]))))
def test_with_two_labels_and_odd_k_the_vote_of_the_paper_is_the_majority(labels: np.ndarray) -> None:
    np.testing.assert_array_equal(legacy_vote(labels), labels.mean(axis=1) > 0.5)


def test_distance_quantile() -> None:
    calibration = np.array([0.1, 0.2, 0.4, 0.8, 1.6])
    found = [distance_quantile(d, calibration) for d in (0.0, 0.1, 0.15, 0.4, 1.2, 1.6, 2.0)]
    assert found == pytest.approx([0, 0, 0.125, 0.5, 0.875, 1, 1])


def test_project_by_hand() -> None:
    mean, axes = np.array([1.0, 1.0, 0.0], np.float32), np.array([[1.0, 0.0, 0.0], [0.0, 2.0, 1.0]], np.float32)
    np.testing.assert_allclose(project(np.array([[2.0, 3.0, 5.0], [1.0, 1.0, 0.0]], np.float32), mean, axes), [[1, 9], [0, 0]])
