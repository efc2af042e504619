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
"""Of scores, labels and cell weights."""

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


def sensitivity_at_specificity(scores: Double, labels: Integers, weights: Double | None = None, specificity: float = 0.95) -> float:
    """Share of blasts above the threshold that this share of normal cells does not exceed; NaN where a class is missing.

    The threshold is the smallest score s with at least ``specificity`` of the weight of normal cells at scores <= s; a blast
    counts if its score is above s.
    """
    w = np.ones(len(scores)) if weights is None else weights
    normal, blast = (labels == 0) & (w > 0), labels == 1
    if not normal.any() or w[blast].sum() <= 0:
        return float("nan")
    order = np.argsort(scores[normal], kind="stable")
    share = np.cumsum(w[normal][order]) / w[normal].sum()
    threshold = scores[normal][order][int(np.searchsorted(share, specificity - 1e-12))]
    return float((w * (scores > threshold))[blast].sum() / w[blast].sum())


def expected_calibration_error(probabilities: Double, labels: Integers, weights: Double | None = None, bins: int = 15) -> float:
    """Mean absolute gap between predicted and observed blast share over equal-width bins, weighted by count."""
    w = np.ones(len(probabilities)) if weights is None else weights
    bin_of = np.minimum((probabilities * bins).astype(int), bins - 1)
    gaps = np.bincount(bin_of, weights=w * (probabilities - labels), minlength=bins)
    return float(np.abs(gaps).sum() / w.sum())


def brier_score(probabilities: Double, labels: Integers, weights: Double | None = None) -> float:
    """Mean squared difference between probability and label."""
    w = np.ones(len(probabilities)) if weights is None else weights
    return float((w * (probabilities - labels) ** 2).sum() / w.sum())


def bootstrap_by_patient(
    statistic: Statistic, scores: Double, labels: Integers, patients: NDArray[np.str_], resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Resample patients with replacement and recompute a statistic.

    Args:
        statistic: function of scores, labels and cell weights.
        scores, labels: (N,), what it is of.
        patients: (N,) patient of each cell.
        resamples: number of draws.
        seed: of the draws.
    """
    return bootstrap_of(lambda weights: statistic(scores, labels, weights), patients, resamples, seed)


def bootstrap_of(statistic: Callable[[Double], float], patients: NDArray[np.str_], resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Resample patients with replacement; the statistic is a function of the weights of cells, so that paired differences are as easy.

    Args:
        statistic: of the weights (N,) of cells, whole numbers.
        patients: (N,) patient of each cell.
        resamples: number of draws.
        seed: of the draws.
    """
    names, inverse = np.unique(patients, return_inverse=True)
    generator = np.random.default_rng(seed)
    values = np.empty(resamples)
    for i in range(resamples):
        drawn = np.bincount(generator.integers(0, len(names), len(names)), minlength=len(names)).astype(np.float64)
        values[i] = statistic(drawn[inverse])
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return Interval(statistic(np.ones(len(patients))), float(low), float(high))


def protocol_figures(probabilities: Double, labels: Integers, patients: NDArray[np.str_], resamples: int = RESAMPLES) -> dict[str, Interval]:
    """The figures of the protocol, each with its interval by patient.

    Args:
        probabilities: (N,), of blast, 0..1.
        labels: (N,) 0 or 1.
        patients: (N,).
        resamples: number of draws.
    """
    statistics: dict[str, Statistic] = {
        "AUC": auc,
        "balanced accuracy": balanced_accuracy,
        "sensitivity at 95 % specificity": sensitivity_at_specificity,
        "expected calibration error": expected_calibration_error,
        "Brier score": brier_score,
    }
    return {name: bootstrap_by_patient(f, probabilities, labels, patients, resamples) for name, f in statistics.items()}
