"""Figures of measurements: percentiles, rates, and slopes with their confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import stats

CONFIDENCE: Final = 0.95
_BLOCKS: Final = 24
"""A series is cut into so many blocks at most, and their means are compared: neighbouring samples of memory are alike."""
_FEWEST: Final = 4


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which a share 0..1 of the values lies, linear between two values; NaN without values."""
    return float(np.quantile(np.asarray(values, np.float64), share)) if len(values) else math.nan


def steady_rate(ended: Sequence[float], in_flight: int) -> float:
    """Answers per second of a closed loop in its steady state.

    The first answers come late, because the loop fills, and the last calls are cut off. So the rate is counted between two answers: from the
    one by which all of the first calls may have been answered to the last.

    Args:
        ended: when the answers came, seconds, in any order.
        in_flight: calls in flight at once.
    """
    times = sorted(ended)
    first = min(in_flight, len(times) // 2)
    if len(times) - first < 2 or times[-1] <= times[first]:
        return 0.0
    return (len(times) - 1 - first) / (times[-1] - times[first])


@dataclass(frozen=True)
class Slope:
    """Slope of a straight line through a series.

    Attributes:
        per_second: units of the series per second.
        low, high: its confidence interval.
    """

    per_second: float
    low: float
    high: float

    @property
    def may_be_zero(self) -> bool:
        """Whether the interval holds 0."""
        return self.low <= 0.0 <= self.high

    def scaled(self, factor: float) -> Slope:
        """In other units."""
        return Slope(self.per_second * factor, self.low * factor, self.high * factor)


def slope(times: Sequence[float], values: Sequence[float], confidence: float = CONFIDENCE) -> Slope:
    """Least-squares slope with the interval of Student's t.

    The interval is that of the means of at most 24 blocks, with the degrees of freedom of so many, and is wider by what the blocks still have in
    common with their neighbours (first-order autocorrelation of the residuals). Without at least four samples it is infinite.

    Args:
        times: seconds, ascending.
        values: one for each time.
        confidence: of the interval, 0..1.
    """
    if len(times) < _FEWEST:
        return Slope(math.nan, -math.inf, math.inf)
    blocks = min(_BLOCKS, max(_FEWEST, len(times) // 4))
    x = np.array([part.mean() for part in np.array_split(np.asarray(times, np.float64), blocks)])
    y = np.array([part.mean() for part in np.array_split(np.asarray(values, np.float64), blocks)])
    centred = x - x.mean()
    spread = float(centred @ centred)
    gradient = float(centred @ y) / spread
    residuals = y - y.mean() - gradient * centred
    variance = float(residuals @ residuals)
    alike = float(residuals[1:] @ residuals[:-1]) / variance if variance > 0 else 0.0
    alike = min(max(alike, 0.0), 0.9)
    error = math.sqrt(variance / (blocks - 2) / spread * (1 + alike) / (1 - alike))
    half = float(stats.t.ppf(0.5 + confidence / 2, blocks - 2)) * error
    return Slope(gradient, gradient - half, gradient + half)
