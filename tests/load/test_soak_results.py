"""What a soak test concludes from its samples."""

from __future__ import annotations

import numpy as np
import pytest

from tests.load.calls import INTERACTIVE, Call, Outcome
from tests.load.results import Machine
from tests.load.soak_results import SoakReport, SoakResult, Totals, conclude, growth_of, soak_page, warm_up
from tests.load.watching import Series

SECONDS = np.arange(0.0, 1800.0, 5.0)


def _series(mib_per_hour: float = 0.0, *, descriptors: int = 0, threads: int = 0) -> Series:
    noise = np.random.default_rng(1).normal(0.0, 0.3, len(SECONDS))
    start = 80.0 * (1.0 - np.exp(-SECONDS / 60.0))
    late = SECONDS > 1200.0
    memory = 200.0 + start + mib_per_hour * SECONDS / 3600.0 + noise
    return Series(SECONDS.tolist(), memory.tolist(), (20 + descriptors * late).tolist(), (9 + threads * late).tolist())


def _checked(series: Series) -> dict[str, bool]:
    result = SoakResult("embedded", "mix", 10.0, Totals(answered=1_000), series={"embedded": series})
    conclude(result)
    return {check.what: check.holds for check in result.checks}


def test_memory_that_settles_is_constant() -> None:
    assert all(_checked(_series()).values())


@pytest.mark.parametrize(
    ("series", "words"),
    [
        (_series(60.0), "grows by"),
        (_series(descriptors=3), "20 open files first and 23 last"),
        (_series(threads=1), "9 threads first and 10 last"),
    ],
)
def test_what_grows_is_named(series: Series, words: str) -> None:
    failed = [what for what, holds in _checked(series).items() if not holds]
    assert len(failed) == 1
    assert words in failed[0]


def test_a_slope_that_is_sure_but_small_is_allowed() -> None:
    growth = growth_of(_series(8.0))
    assert growth is not None
    assert growth.low <= 8.0 <= growth.high
    assert all(_checked(_series(8.0)).values())


def test_the_warm_up_ends_after_ten_minutes_at_most() -> None:
    assert warm_up(600.0) == pytest.approx(200.0)
    assert warm_up(36_000.0) == 600.0


def test_calls_are_counted_as_they_end() -> None:
    totals = Totals()
    for outcome in (Outcome.ANSWERED, Outcome.ANSWERED, Outcome.REFUSED, Outcome.LOST, Outcome.WRONG):
        totals.add(Call(0.0, 0.5, outcome, "OK", INTERACTIVE))
    assert totals == Totals(2, 1, 1, 1, 1.0, 0.5)


def test_a_lost_call_fails_and_a_page_is_written() -> None:
    result = SoakResult("embedded", "mix", 10.0, Totals(answered=9, lost=1), series={"embedded": _series()})
    conclude(result)
    assert not result.checks[0].holds
    text = soak_page(SoakReport(Machine.here(), {}, [result]))
    assert text.count("<svg") == 1
    assert "1 of 10 calls" in text


def test_too_few_samples_say_nothing() -> None:
    assert growth_of(Series([0.0, 5.0], [1.0, 1.0], [1, 1], [1, 1])) is None
    assert growth_of(Series()) is None
