"""Figures of independent labels: label accuracy (one minus the Hamming loss), Jaccard by sample, and the threshold that is best for it."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Double = NDArray[np.float64]
Flags = NDArray[np.bool_]

THRESHOLDS: Final = tuple(round(0.05 + 0.01 * i, 2) for i in range(91))
"""Thresholds that ALL-IDB Patches tries: 0.05 to 0.95."""


def label_accuracy(predicted: Flags, labels: Flags, weights: Double | None = None) -> float:
    """Share of labels that are right, one minus the Hamming loss.

    Args:
        predicted, labels: bool (N, K).
        weights: (N,) non-negative; ones if None.
    """
    return _mean((predicted == labels).mean(axis=1), weights)


def sample_jaccard(predicted: Flags, labels: Flags, weights: Double | None = None) -> float:
    """Mean over samples of the labels that are both predicted and true, among those that are either; 1 where none is either.

    Args:
        predicted, labels: bool (N, K).
        weights: (N,) non-negative; ones if None.
    """
    either = (predicted | labels).sum(axis=1)
    both = (predicted & labels).sum(axis=1)
    return _mean(np.where(either == 0, 1.0, both / np.maximum(either, 1)), weights)


def global_threshold(probabilities: Double, labels: Flags) -> float:
    """The one threshold of all labels with the best Jaccard by sample, of ``THRESHOLDS``; of equal ones the lowest.

    Args:
        probabilities: (N, K), 0..1.
        labels: bool (N, K).
    """
    return max(THRESHOLDS, key=lambda t: (sample_jaccard(probabilities >= t, labels), -t))


def label_threshold(probabilities: Double, labels: Flags) -> float:
    """The threshold of one label with the best Jaccard of its positives, of ``THRESHOLDS``; of equal ones the lowest.

    Args:
        probabilities: (N,), 0..1.
        labels: bool (N,).
    """

    def jaccard(threshold: float) -> float:
        predicted = probabilities >= threshold
        return float((predicted & labels).sum() / max(1, (predicted | labels).sum()))

    return max(THRESHOLDS, key=lambda t: (jaccard(t), -t))


def _mean(values: Double, weights: Double | None) -> float:
    return float(values.mean() if weights is None else (values * weights).sum() / weights.sum())
