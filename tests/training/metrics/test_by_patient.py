"""Tests of figures and their intervals."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.metrics.by_patient import Interval, auc, balanced_accuracy, bootstrap_by_patient, brier_score, expected_calibration_error


def _pairs(scores: list[float], labels: list[int], weights: list[float]) -> float:
    """Weighted share of pairs of a blast and a normal cell in which the blast scores higher, ties half."""
    won = total = 0.0
    for i, j in itertools.product(range(len(scores)), repeat=2):
        if labels[i] == 1 and labels[j] == 0:
            weight = weights[i] * weights[j]
            total += weight
            won += weight * ((scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j]))
    return won / total if total > 0 else math.nan


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1), st.integers(0, 3)), min_size=1, max_size=25))
def test_auc_is_the_share_of_pairs(cells: list[tuple[int, int, int]]) -> None:
    scores, labels, weights = ([float(x) for x in column] for column in zip(*cells, strict=True))
    found = auc(np.array(scores), np.array(labels).astype(int), np.array(weights))
    assert found == pytest.approx(_pairs(scores, [int(x) for x in labels], weights), abs=1e-12, nan_ok=True)


def test_auc_without_weights() -> None:
    scores, labels = np.array([0.1, 0.4, 0.4, 0.8]), np.array([0, 0, 1, 1])
    assert auc(scores, labels) == pytest.approx(3.5 / 4)
    assert auc(-scores, labels) == pytest.approx(0.5 / 4)
    assert math.isnan(auc(scores, np.ones(4, int)))


def test_balanced_accuracy_by_hand() -> None:
    scores, labels = np.array([0.9, 0.5, 0.2, 0.4, 0.6]), np.array([1, 1, 1, 0, 0])
    assert balanced_accuracy(scores, labels) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert balanced_accuracy(scores, labels, np.array([1.0, 1, 4, 3, 1])) == pytest.approx((2 / 6 + 3 / 4) / 2)
    assert balanced_accuracy(scores, labels, threshold=0.15) == pytest.approx(0.5)
    assert math.isnan(balanced_accuracy(scores, np.ones(5, int)))


def test_bootstrap_resamples_patients_not_cells() -> None:
    generator = np.random.default_rng(0)
    # 20 patients of 100 cells that are all alike: the interval is that of 20 values, ten times wider than of 2000.
    levels = generator.normal(0, 1, 20)
    scores = np.repeat(levels, 100)
    patients = np.repeat([f"p{i}" for i in range(20)], 100)

    def mean(s: np.ndarray, _: np.ndarray, w: np.ndarray) -> float:
        return float((s * w).sum() / w.sum())

    by_patient = bootstrap_by_patient(mean, scores, np.zeros(2000, int), patients)
    by_cell = bootstrap_by_patient(mean, scores, np.zeros(2000, int), np.arange(2000).astype(str), resamples=400)
    assert by_patient.value == pytest.approx(levels.mean())
    expected = 2 * 1.96 * levels.std() / math.sqrt(20)
    assert by_patient.high - by_patient.low == pytest.approx(expected, rel=0.1)
    assert by_cell.high - by_cell.low == pytest.approx(expected / 10, rel=0.15)
    assert by_patient.low < by_patient.value < by_patient.high


def test_bootstrap_weights_are_whole_patients() -> None:
    patients = np.array(["a", "b", "a", "c", "b", "a"])
    seen = []

    def record(_: np.ndarray, __: np.ndarray, w: np.ndarray) -> float:
        seen.append(w.copy())
        return 0.0

    bootstrap_by_patient(record, np.zeros(6), np.zeros(6, int), patients, resamples=50)
    for weights in seen:
        of = {p: set(weights[patients == p]) for p in "abc"}
        assert all(len(values) == 1 for values in of.values())
        assert sum(values.pop() for values in of.values()) == 3
    assert len({tuple(w) for w in seen}) > 5


def test_bootstrap_is_repeatable_and_skips_samples_without_a_class() -> None:
    scores, labels = np.array([0.2, 0.9, 0.1]), np.array([0, 1, 0])
    patients = np.array(["a", "b", "c"])
    one, two = (bootstrap_by_patient(auc, scores, labels, patients, resamples=100) for _ in range(2))
    assert one == two == Interval(1.0, 1.0, 1.0)
    assert str(Interval(0.5, 0.25, 0.75)) == "0.5000 [0.2500, 0.7500]"


def test_calibration_error_by_hand() -> None:
    probabilities, labels = np.array([0.1, 0.2, 0.9, 1.0]), np.array([0, 1, 1, 1])
    # Two bins: means 0.15 and 0.95, shares 0.5 and 1.
    assert expected_calibration_error(probabilities, labels, bins=2) == pytest.approx(0.5 * 0.35 + 0.5 * 0.05)
    assert expected_calibration_error(np.array([0.0, 1.0]), np.array([0, 1])) == 0.0


def test_brier_score_by_hand() -> None:
    assert brier_score(np.array([0.1, 0.8]), np.array([0, 1])) == pytest.approx((0.01 + 0.04) / 2)
