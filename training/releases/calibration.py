"""Numbers of the decision rule, fitted on calibration patients, patients weighted equally."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from services.common.cell_classes import CLASSES
from training.datasets.splits import COVERAGE, MIN_PATIENTS, ROUNDING, patients_needed
from training.errors import GateError

Double = NDArray[np.float64]
Integers = NDArray[np.int64]
Names = NDArray[np.str_]

FALSE_BLAST_PERCENTILE: Final = 99.0
CELL_COUNTS: Final = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 70, 100, 150, 200, 300, 500, 1000, 2000, 5000)
_RESAMPLES: Final = 4000


def patient_class_weights(is_blast: Integers, patient: Names) -> Double:
    """Weights of cells that give every patient of a class the same total, and both classes one half; sum 1."""
    weights = np.zeros(len(patient))
    for label in (0, 1):
        of_class = is_blast == label
        names, inverse, counts = np.unique(patient[of_class], return_inverse=True, return_counts=True)
        weights[of_class] = 0.5 / (len(names) * counts[inverse])
    return weights


def fit_temperature(margin: Double, is_blast: Integers, weights: Double) -> float:
    """Temperature that minimises the weighted log loss of ``sigmoid(margin / T)`` (Guo et al., ICML 2017)."""
    found = minimize_scalar(lambda t: log_loss(sigmoid(margin / np.exp(t)), is_blast, weights), bounds=(-2.0, 2.0), method="bounded")
    return float(np.exp(found.x))


def fit_network_weight(network: Double, vote: Double, is_blast: Integers, weights: Double) -> float:
    """Weight w of the linear pool ``w network + (1 - w) vote`` with the least weighted log loss, in steps of 0.05."""
    steps = np.linspace(0.0, 1.0, 21)
    losses = [log_loss(w * network + (1 - w) * vote, is_blast, weights) for w in steps]
    return float(round(steps[int(np.argmin(losses))], 2))


def promised_coverage(is_blast: Integers, patient: Names) -> float:
    """Coverage that prediction sets can promise: n / (n + 1) of the class with the fewest patients n, and ``COVERAGE`` at most.

    Raises:
        GateError: a class has fewer than ``MIN_PATIENTS``.
    """
    fewest, name = min((len(np.unique(patient[is_blast == label])), name) for label, name in ((0, "normal cells"), (1, "blasts")))
    if fewest < MIN_PATIENTS:
        raise GateError(
            f"Only {fewest} calibration patients have {name}, and a prediction set needs {MIN_PATIENTS} of each class to promise anything: "
            f"with fewer, every cell would be indeterminate. {patients_needed()} patients promise {COVERAGE}."
        )
    return min(COVERAGE, fewest / (fewest + 1))


def min_probabilities(fused: Double, is_blast: Integers, patient: Names, coverage: float = COVERAGE) -> dict[str, float]:
    """Class-conditional split-conformal thresholds, patients weighted equally.

    A class stays in the set of a cell when its fused probability is at least the threshold. The threshold is the
    ``(1 - coverage)`` quantile of the class's probability over calibration cells, with the weight of one more patient
    put at the lowest value (the finite-sample correction by patient). It is 0, which excludes nothing, where there are too
    few patients for the coverage.
    """
    share = 1.0 - coverage + ROUNDING
    thresholds = {}
    for label, name in enumerate(CLASSES):
        of_class = is_blast == label
        probability = fused[of_class] if label else 1.0 - fused[of_class]
        names, inverse, counts = np.unique(patient[of_class], return_inverse=True, return_counts=True)
        weights = 1.0 / ((len(names) + 1) * counts[inverse])
        order = np.argsort(probability)
        cumulative = 1.0 / (len(names) + 1) + np.cumsum(weights[order])
        inside = np.flatnonzero(cumulative > share)
        first = inside[0] if 1.0 / (len(names) + 1) <= share else None
        thresholds[name] = 0.0 if first is None else float(np.floor(probability[order][first] * 1e6) / 1e6)
    return thresholds


def false_blast_table(suspected: NDArray[np.bool_], is_blast: Integers, patient: Names, seed: int = 0) -> tuple[tuple[int, int], ...]:
    """99th percentile of falsely suspected cells by number of cells.

    For every count n: draw a calibration patient, draw n of the patient's normal cells with replacement, count how many
    are suspected; repeat; take the percentile. Between patients the rate varies more than chance alone would tell.
    """
    normal = is_blast == 0
    rates = np.array([suspected[normal & (patient == p)].mean() for p in np.unique(patient[normal])])
    generator = np.random.default_rng(seed)
    table = []
    for n in CELL_COUNTS:
        drawn = generator.binomial(n, generator.choice(rates, _RESAMPLES))
        table.append((n, int(np.percentile(drawn, FALSE_BLAST_PERCENTILE, method="higher"))))
    return tuple(table)


def sigmoid(x: Double) -> Double:
    """Logistic function."""
    return np.asarray(1.0 / (1.0 + np.exp(-x)), np.float64)


def log_loss(probability: Double, is_blast: Integers, weights: Double) -> float:
    """Weighted mean log loss, probabilities clipped to 1e-4."""
    p = np.clip(probability, 1e-4, 1 - 1e-4)
    return float(-(weights * np.where(is_blast == 1, np.log(p), np.log(1 - p))).sum() / weights.sum())
