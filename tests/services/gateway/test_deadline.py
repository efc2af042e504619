"""A deadline that has passed leaves a millisecond, so that the call still ends by it."""

from __future__ import annotations

from services.gateway.deadline import Deadline


def test_time_runs_down_and_never_below_a_millisecond() -> None:
    assert 29.0 < Deadline(30.0).left <= 30.0
    assert Deadline(-5.0).left == 0.001
