"""How long work will wait, by priority."""

from __future__ import annotations

import pytest

from services.common.admission.pace import LONGEST_RETRY, SHORTEST_RETRY, Pace, retry_after
from services.common.admission.priority import Priority

INTERACTIVE, BATCH = Priority.INTERACTIVE, Priority.BATCH


def test_before_anything_was_measured_a_budget_is_given_back_in_two_seconds() -> None:
    assert Pace(100).wait(0.0, [(INTERACTIVE, 50), (INTERACTIVE, 25)], INTERACTIVE) == pytest.approx(1.5)


def _worked(pace: Pace, priority: Priority, amount: int, each: float, start: float, seconds: float) -> float:
    """Pieces of work one after the other; the time at the end."""
    now = start
    while now < start + seconds:
        pace.begun(now, priority)
        now += each
        pace.ended(now, priority, amount)
    return now


def test_interactive_work_waits_by_the_pace_of_all_work() -> None:
    pace = Pace(100)
    now = _worked(pace, BATCH, 10, 1.0, 0.0, 40.0)
    assert pace.wait(now, [(INTERACTIVE, 20)], INTERACTIVE) == pytest.approx(2.0, rel=0.1)


def test_batches_wait_by_what_is_left_for_them() -> None:
    pace = Pace(100)
    pace.begun(0.0, BATCH)
    now = _worked(pace, INTERACTIVE, 10, 0.1, 0.0, 40.0)
    assert pace.wait(now, [(INTERACTIVE, 100)], INTERACTIVE) == pytest.approx(1.0, rel=0.1)
    assert pace.wait(now, [(BATCH, 10)], BATCH) > 100.0
    pace.ended(now, BATCH, 10)
    now = _worked(pace, BATCH, 10, 0.5, now, 40.0)
    assert pace.wait(now, [(BATCH, 40)], BATCH) == pytest.approx(2.0, rel=0.1), "it recovers"


def test_what_is_interactive_goes_before_a_batch_at_its_own_pace() -> None:
    pace, now = Pace(100), 0.0
    for _ in range(40):
        pace.begun(now, BATCH)
        now = _worked(pace, INTERACTIVE, 10, 0.1, now, 0.95)
        pace.ended(now, BATCH, 10)
    assert pace.wait(now, [(INTERACTIVE, 110), (BATCH, 20)], BATCH) == pytest.approx(1.0 + 2.0, rel=0.15)


def test_work_that_was_given_up_was_not_done() -> None:
    pace = Pace(100)
    pace.begun(0.0, INTERACTIVE)
    pace.ended(10.0, INTERACTIVE, 0)
    assert pace.wait(10.0, [(INTERACTIVE, 10)], INTERACTIVE) > 2.0
    assert (pace.count(INTERACTIVE), pace.count(BATCH)) == (0, 0)


@pytest.mark.parametrize(("expected", "told"), [(0.0, SHORTEST_RETRY), (3.0, 3.0), (1e9, LONGEST_RETRY), (float("inf"), LONGEST_RETRY)])
def test_when_to_come_again_is_bounded(expected: float, told: float) -> None:
    assert retry_after(expected) == told
