"""Tests of learning rates, by hand."""

from __future__ import annotations

import pytest

from training.learning.schedules import Rates, rates
from training.recipes.config import Schedule, ScheduleKind

PER_EPOCH = 5


def _at(schedule: Schedule, epoch: int, step: int = 0, epochs: int = 80, rate: float = 0.02) -> Rates:
    return rates(schedule, rate, 0.9, epoch * PER_EPOCH + step, PER_EPOCH, epochs)


@pytest.mark.parametrize(
    ("epoch", "rate", "momentum"),
    [(0, 0.001, 0.9), (1, 0.00575, 0.875), (2, 0.0105, 0.85), (4, 0.02, 0.8), (6, 0.0105, 0.85), (8, 0.001, 0.9), (12, 0.02, 0.8)],
)
def test_the_triangle_has_a_period_of_eight_epochs(epoch: int, rate: float, momentum: float) -> None:
    triangle = Schedule(kind=ScheduleKind.TRIANGULAR, low=0.001, period_epochs=8, low_momentum=0.8)
    for step in (0, PER_EPOCH - 1):
        assert _at(triangle, epoch, step) == pytest.approx(Rates(rate, momentum))


@pytest.mark.parametrize(("epoch", "rate"), [(0, 0.02), (19, 0.02), (20, 0.01), (40, 0.005), (99, 0.00125)])
def test_steps_halve_the_rate_every_twenty_epochs(epoch: int, rate: float) -> None:
    assert _at(Schedule(kind=ScheduleKind.STEP, step_epochs=20, gamma=0.5), epoch) == pytest.approx(Rates(rate, 0.9))


def test_one_cycle_rises_over_a_tenth_and_falls_to_zero() -> None:
    cycle = Schedule(kind=ScheduleKind.ONE_CYCLE)
    every = [rates(cycle, 0.5, 0.9, step, 10, 10).learning_rate for step in range(100)]
    assert every[:10] == pytest.approx([0.05 * (i + 1) for i in range(10)])
    assert every[10] == pytest.approx(0.5)
    assert every[55] == pytest.approx(0.25)
    assert every[99] == pytest.approx(0.5 * 0.5 * (1 - 0.99939), abs=1e-4)
    assert every[10:] == sorted(every[10:], reverse=True)


def test_half_a_cosine_falls_to_its_low_once_per_epoch() -> None:
    cosine = Schedule(kind=ScheduleKind.COSINE, low=1e-6)
    assert _at(cosine, 0, epochs=100, rate=1e-4).learning_rate == pytest.approx(1e-4)
    assert _at(cosine, 50, 3, epochs=100, rate=1e-4).learning_rate == pytest.approx((1e-4 + 1e-6) / 2)
    assert _at(cosine, 99, epochs=100, rate=1e-4).learning_rate == pytest.approx(1e-6, rel=0.03)
    assert _at(cosine, 7, 0) == _at(cosine, 7, PER_EPOCH - 1)


def test_constant_is_constant() -> None:
    assert _at(Schedule(kind=ScheduleKind.CONSTANT), 37) == Rates(0.02, 0.9)
