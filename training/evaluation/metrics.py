"""Figures with intervals by patient: cells of one patient are alike, so patients are resampled, not cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Double = NDArray[np.float64]
Integers = NDArray[np.int64]
Statistic = Callable[[Double, Integers, Double], float]

RESAMPLES: Final = 2000


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % percentile bootstrap interval by patient."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def auc(scores: Double, labels: Integers, weights: Double | None = None) -> float:
    """Area under the ROC curve, ties counted half; NaN where a class is missing.

    Args:
        scores: (N,), higher means blast.
        labels: (N,) 0 or 1.
        weights: (N,) non-negative; ones if None.
    """
    w = np.ones(len(scores)) if weights is None else weights
    order = np.argsort(scores, kind="stable")
    s, y, w = scores[order], labels[order], w[order]
    positive, negative = w * (y == 1), w * (y == 0)
    if positive.sum() <= 0 or negative.sum() <= 0:
        return float("nan")
    _, start = np.unique(s, return_index=True)
    negative_in, positive_in = np.add.reduceat(negative, start), np.add.reduceat(positive, start)
    below = np.concatenate([[0.0], np.cumsum(negative_in)[:-1]])
    return float((positive_in * (below + 0.5 * negative_in)).sum() / (positive.sum() * negative.sum()))


def balanced_accuracy(scores: Double, labels: Integers, weights: Double | None = None, threshold: float = 0.5) -> float:
    """Mean of sensitivity and specificity at ``scores >= threshold``."""
    w = np.ones(len(scores)) if weights is None else weights
    right = (scores >= threshold) == (labels == 1)
    shares = []
    for label in (0, 1):
        total = w[labels == label].sum()
        shares.append((w * right)[labels == label].sum() / total if total > 0 else np.nan)
    return float(np.mean(shares))


def bootstrap_by_patient(
    statistic: Statistic, scores: Double, labels: Integers, patients: NDArray[np.str_], resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Resample patients with replacement and recompute a statistic.

    Args:
        statistic: function of scores, labels and cell weights.
        patients: (N,) patient of each cell.
    """
    names, inverse = np.unique(patients, return_inverse=True)
    generator = np.random.default_rng(seed)
    values = np.empty(resamples)
    for i in range(resamples):
        drawn = np.bincount(generator.integers(0, len(names), len(names)), minlength=len(names)).astype(np.float64)
        values[i] = statistic(scores, labels, drawn[inverse])
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return Interval(statistic(scores, labels, np.ones(len(scores))), float(low), float(high))


def expected_calibration_error(probabilities: Double, labels: Integers, bins: int = 15) -> float:
    """Mean absolute gap between predicted and observed blast share over equal-width bins, weighted by count."""
    bin_of = np.minimum((probabilities * bins).astype(int), bins - 1)
    gap = 0.0
    for b in np.unique(bin_of):
        inside = bin_of == b
        gap += inside.mean() * abs(probabilities[inside].mean() - labels[inside].mean())
    return float(gap)


def brier_score(probabilities: Double, labels: Integers) -> float:
    """Mean squared difference between probability and label."""
    return float(np.mean((probabilities - labels) ** 2))
