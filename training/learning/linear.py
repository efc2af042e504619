"""A linear classifier of features that are not learned: ridge logistic regression, both classes counting the same."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

Double = NDArray[np.float64]
Integers = NDArray[np.int64]
RIDGE: Final = 1e-2
_NEAR_ZERO: Final = 1e-9


def linear_margins(train: Double, labels: Integers, test: Double, ridge: float = RIDGE) -> Double:
    """Learn on some rows, judge others.

    Features are standardised by mean and deviation of the training rows. One that does not vary there says nothing, whatever it is elsewhere.

    Args:
        train: float64 (N, D), N >= 1.
        labels: (N,) 1 blast, 0 normal.
        test: float64 (M, D).
        ridge: weight of the squared coefficients, the bias excepted, against the mean loss of both classes.

    Returns:
        float64 (M,), above 0 for a blast.
    """
    varies = train.max(axis=0) > train.min(axis=0)
    mean, std = train.mean(axis=0), train.std(axis=0) + _NEAR_ZERO
    return _with_bias(np.where(varies, (test - mean) / std, 0.0)) @ _logistic(_with_bias(np.where(varies, (train - mean) / std, 0.0)), labels, ridge)


def _with_bias(x: Double) -> Double:
    return np.concatenate([x, np.ones((len(x), 1))], axis=1)


def _logistic(x: Double, y: Integers, ridge: float) -> Double:
    """Coefficients (D,) of the columns of ``x`` (N, D), of which the last is the bias."""
    weights = np.where(y == 1, 0.5 / max(1, (y == 1).sum()), 0.5 / max(1, (y == 0).sum()))
    signs = np.where(y == 1, 1.0, -1.0)

    def loss(w: Double) -> tuple[float, Double]:
        margin = signs * (x @ w)
        value = (weights * np.logaddexp(0.0, -margin)).sum() + ridge * (w[:-1] ** 2).sum() / 2
        slope = x.T @ (-weights * signs / (1.0 + np.exp(np.clip(margin, -500, 500))))
        return float(value), slope + ridge * np.append(w[:-1], 0.0)

    return np.asarray(minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B").x, np.float64)
