"""Percentiles, rates and slopes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.load.figures import percentile, slope, steady_rate


def test_percentiles_lie_between_the_values() -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.5
    assert percentile([5.0], 0.99) == 5.0
    assert math.isnan(percentile([], 0.5))


def test_the_rate_of_a_closed_loop_ignores_how_it_fills_and_ends() -> None:
    ended = [1.0 + 0.25 * number for number in range(41)]
    assert steady_rate(ended, in_flight=4) == pytest.approx(4.0)
    assert steady_rate(list(reversed(ended)), in_flight=4) == pytest.approx(4.0)
    assert steady_rate([1.0], in_flight=1) == 0.0
    assert steady_rate([], in_flight=8) == 0.0


def test_a_slope_is_found_with_its_interval() -> None:
    times = np.arange(0.0, 600.0, 5.0)
    noise = np.random.default_rng(1).normal(0.0, 1.0, len(times))
    found = slope(times.tolist(), (100.0 + 0.05 * times + noise).tolist())
    assert found.low < 0.05 < found.high
    assert not found.may_be_zero
    assert found.scaled(3600.0).per_second == pytest.approx(3600.0 * found.per_second)


def test_noise_has_no_slope_in_nineteen_of_twenty_cases() -> None:
    times = np.arange(0.0, 600.0, 5.0).tolist()
    draws = np.random.default_rng(2)
    kept = sum(slope(times, draws.normal(0.0, 1.0, len(times)).tolist()).may_be_zero for _ in range(400))
    assert 0.93 <= kept / 400 <= 0.99


def test_noise_that_resembles_its_neighbours_widens_the_interval() -> None:
    draws = np.random.default_rng(3)
    times = np.arange(0.0, 1000.0, 1.0).tolist()

    def walk() -> list[float]:
        value, found = 0.0, []
        for step in draws.normal(0.0, 1.0, len(times)).tolist():
            value = 0.98 * value + step
            found.append(value)
        return found

    kept = sum(slope(times, walk()).may_be_zero for _ in range(200))
    assert kept / 200 >= 0.9


def test_too_few_samples_exclude_nothing() -> None:
    found = slope([0.0, 1.0], [1.0, 2.0])
    assert found.low == -math.inf
    assert found.high == math.inf


def test_a_series_without_noise_has_no_interval() -> None:
    found = slope([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [7.0] * 6)
    assert (found.per_second, found.low, found.high) == (0.0, 0.0, 0.0)
