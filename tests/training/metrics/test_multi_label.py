"""Tests of the figures of independent labels, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from training.metrics.multi_label import THRESHOLDS, global_threshold, label_accuracy, label_threshold, sample_jaccard

LABELS = np.array([[1, 1], [1, 0], [0, 0], [0, 1]], np.bool_)
PREDICTED = np.array([[1, 0], [1, 0], [0, 0], [1, 0]], np.bool_)


def test_label_accuracy_by_hand() -> None:
    assert label_accuracy(PREDICTED, LABELS) == pytest.approx(5 / 8)
    assert label_accuracy(PREDICTED, LABELS, np.array([0.0, 1.0, 1.0, 2.0])) == pytest.approx(0.5)


def test_jaccard_counts_nothing_against_nothing_as_one() -> None:
    assert sample_jaccard(PREDICTED, LABELS) == pytest.approx((0.5 + 1 + 1 + 0) / 4)
    assert sample_jaccard(LABELS, LABELS) == 1.0


def test_the_published_thresholds() -> None:
    assert (len(THRESHOLDS), THRESHOLDS[0], THRESHOLDS[-1]) == (91, 0.05, 0.95)


def test_the_best_threshold_is_the_lowest_of_equals() -> None:
    probabilities = np.array([[0.9, 0.8], [0.9, 0.3], [0.2, 0.1], [0.3, 0.7]])
    assert global_threshold(probabilities, LABELS) == 0.31


def test_each_label_has_the_threshold_of_its_own_jaccard() -> None:
    probabilities = np.array([0.9, 0.6, 0.5, 0.1])
    assert label_threshold(probabilities, np.array([True, True, False, False])) == 0.51
    assert label_threshold(probabilities, np.array([True, True, True, False])) == 0.11
    assert label_threshold(probabilities, np.array([False, False, False, False])) == 0.05
