"""What is computed from the calls of an overload, and which mutations of a service its checks notice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.load.calls import BATCH, INTERACTIVE, Call, Outcome
from tests.load.overload_page import overload_page
from tests.load.overload_results import (
    OverloadReport,
    OverloadResult,
    OverloadRun,
    by_second,
    checks_of,
    goodput,
    growth,
    recovery,
    refusal_ms,
)
from tests.load.results import ClosedStep, Ends, Latency, Machine, Usage
from tests.load.watching import Series


def _call(intended: float, latency: float, outcome: Outcome = Outcome.ANSWERED, batch: bool = False) -> Call:
    retry = 0.5 if outcome is Outcome.REFUSED else None
    return Call(intended, intended + latency, outcome, "OK", BATCH if batch else INTERACTIVE, retry, 1)


def _latency(seconds: float) -> Latency | None:
    return Latency.of([_call(0.1 * number, seconds) for number in range(100)])


def _closed(rate: float, generator_share: float | None) -> ClosedStep:
    return ClosedStep(4, rate, _latency(0.2), Ends(100, 0, 0, 0), Usage(10.0, {}, generator_share, 0.9, {}))


def _run(**changed: Any) -> OverloadRun:
    run = OverloadRun(
        calm=_latency(0.1),
        calm_ends=Ends(100, 0, 0, 0),
        peak=_closed(20.0, 0.02),
        interactive=_latency(0.12),
        goodput=18.0,
        refusal_ms=4.0,
        interactive_ends=Ends(40, 0, 0, 0),
        batch_ends=Ends(200, 600, 0, 0, {"RESOURCE_EXHAUSTED": 600}, 600),
        growth=1.01,
        recovery=1.0,
        usage=Usage(20.0, {"embedded": 50.0, "generator": 5.0}, 0.09, 0.9, {"embedded": 300.0}),
        seconds=by_second([_call(0.5, 0.1)], [_call(0.2, 0.1, batch=True)], 3.0),
        memory={"embedded": Series([0.0, 1.0], [100.0, 101.0], [10, 10], [5, 5])},
    )
    return replace(run, **changed)


def _result(*runs: OverloadRun) -> OverloadResult:
    return OverloadResult("embedded", "mix", _closed(20.0, None), list(runs))


def test_goodput_is_compared_with_the_peak_of_what_the_generator_left() -> None:
    run = _run(goodput=16.2)
    assert run.kept == pytest.approx(0.81)
    assert run.kept_of_rest == pytest.approx(0.81 * (1 - 0.02 * 0.9) / (1 - 0.09 * 0.9))
    elsewhere = _run(peak=_closed(20.0, None), usage=replace(run.usage, generator_share=None))
    assert elsewhere.kept == elsewhere.kept_of_rest
    assert _run(peak=_closed(0.0, None)).kept_of_rest is None


def test_goodput_counts_answers_while_the_overload_lasts() -> None:
    calls = [_call(0.5 * number, 0.1) for number in range(30)] + [_call(5.0, 0.1, Outcome.REFUSED), _call(11.9, 3.0)]
    assert goodput(calls, 12.0) == pytest.approx(2.0)


def test_the_time_to_a_refusal_is_a_median() -> None:
    refused = [_call(0.0, seconds, Outcome.REFUSED) for seconds in (0.001, 0.002, 5.0)]
    assert refusal_ms([*refused, _call(0.0, 1.0)]) == pytest.approx(2.0)
    assert refusal_ms([_call(0.0, 1.0)]) is None


def test_memory_that_grows_until_the_end_is_seen() -> None:
    seconds = [float(number) for number in range(60)]
    flat = Series(seconds, [100.0] * 60, [], [])
    rising = Series(seconds, [100.0 + 5.0 * at for at in seconds], [], [])
    assert growth([flat], 60.0) == pytest.approx(1.0)
    assert growth([flat, rising], 60.0) == pytest.approx(1.4, abs=0.02)
    assert growth([], 60.0) is None


def test_recovery_ends_with_the_last_slow_second() -> None:
    quick = [_call(10.0 + 0.25 * number, 0.1) for number in range(32)]
    assert recovery(quick, 10.0, 8.0, normal=0.2) == 0.0
    slow = [replace(call, ended=call.intended + 1.0) if call.intended < 12.6 else call for call in quick]
    assert recovery(slow, 10.0, 8.0, normal=0.2) == 3.0
    assert recovery([replace(call, ended=call.intended + 1.0) for call in quick], 10.0, 8.0, normal=0.2) is None
    assert recovery([replace(call, outcome=Outcome.LOST) for call in quick], 10.0, 8.0, normal=0.2) is None
    assert recovery([], 10.0, 8.0, normal=0.2) == 0.0


def test_the_course_counts_every_call_once() -> None:
    own = [_call(0.2, 0.1), _call(1.2, 0.1), _call(1.4, 0.1, Outcome.LOST), _call(1.5, 0.1, Outcome.REFUSED)]
    others = [_call(0.1, 0.01, Outcome.REFUSED, batch=True), _call(0.1, 2.0, batch=True)]
    course = by_second(own, others, 3.0)
    found = [(s.batch_answered, s.batch_refused, s.interactive_answered, s.interactive_refused, s.other) for s in course]
    assert found == [(0, 1, 1, 0, 0), (0, 0, 1, 1, 1), (1, 0, 0, 0, 0)]
    assert course[2].interactive_p50_ms is None


def test_a_sound_service_passes_by_the_medians_of_its_runs() -> None:
    outlier = _run(goodput=2.0, interactive=_latency(3.0), refusal_ms=900.0)
    assert all(check.holds for check in checks_of(_result(_run(), outlier, _run())))
    assert checks_of(_result()) == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"goodput": 9.0}, "answers per second under overload"),
        ({"refusal_ms": 80.0}, "median time to a refusal"),
        ({"refusal_ms": None}, "median time to a refusal"),
        ({"interactive": _latency(0.25)}, "p99 of interactive calls"),
        ({"interactive": None}, "p99 of interactive calls"),
        ({"batch_ends": Ends(200, 600, 1, 0, {}, 600)}, "without an answer or a refusal"),
        ({"interactive_ends": Ends(40, 0, 0, 1)}, "without an answer or a refusal"),
        ({"batch_ends": Ends(200, 600, 0, 0, {}, 0)}, "do not say when to try again"),
        ({"interactive_ends": Ends(30, 10, 0, 0, {}, 10)}, "share of the interactive calls"),
        ({"recovery": None}, "seconds until latency"),
        ({"recovery": 7.0}, "seconds until latency"),
        ({"growth": 1.5}, "memory in the last third"),
    ],
)
def test_a_broken_service_fails(changed: dict[str, Any], words: str) -> None:
    failed = [check.what for check in checks_of(_result(*[_run(**changed)] * 3)) if not check.holds]
    assert len(failed) == 1
    assert words in failed[0]


def test_the_page_shows_every_run() -> None:
    result = _result(_run(), _run(interactive=None, refusal_ms=None, recovery=None))
    result.checks = checks_of(result)
    text = overload_page(OverloadReport(Machine.here(), {}, 3.0, [result, OverloadResult("five", "mix")], complete=True))
    assert text.count("<svg") == 2
    assert "embedded, mix, 2" in text
