"""The rate of work, from what was given back while there was work."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.admission.rate import Rate


def test_before_anything_was_measured_it_is_what_is_assumed() -> None:
    rate = Rate(40.0)
    assert rate.per_second(0.0) == rate.per_second(1e6) == 40.0


def test_it_becomes_what_is_measured() -> None:
    rate = Rate(40.0, memory=5.0)
    rate.note(0.0, 0.0, is_busy=True)
    for tick in range(1, 301):
        rate.note(tick / 10, 1.0, is_busy=True)
        if tick == 10:
            assert 20.0 < rate.per_second(1.0) < 30.0, "what is assumed counts as one second"
    assert rate.per_second(30.0) == pytest.approx(10.0, rel=0.05)


def test_idle_time_neither_counts_nor_fades() -> None:
    rate = Rate(40.0)
    rate.note(0.0, 0.0, is_busy=True)
    rate.note(10.0, 100.0, is_busy=False)
    assert rate.per_second(10.0) == rate.per_second(5000.0)


def test_it_falls_while_there_is_work_and_nothing_is_given_back_and_it_recovers() -> None:
    rate = Rate(40.0, memory=5.0)
    rate.note(0.0, 0.0, is_busy=True)
    assert rate.per_second(2.0) < 20.0
    assert 0.0 < rate.per_second(1e9) < 1e-6
    for tick in range(101):
        rate.note(1000.0 + tick / 10, 1.0, is_busy=True)
    assert rate.per_second(1010.0) == pytest.approx(10.0, rel=0.2)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1e9), st.booleans()), max_size=40))
def test_it_is_always_a_number_above_0(steps: list[tuple[float, float, bool]]) -> None:
    rate, now = Rate(1.0), 0.0
    for seconds, amount, is_busy in steps:
        now += seconds
        rate.note(now, amount, is_busy=is_busy)
        assert 0.0 < rate.per_second(now) < float("inf")
