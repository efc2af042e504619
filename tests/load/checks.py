"""Thresholds of the short form: ratios within one run, so wide that a busy machine keeps them and a broken server does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tests.load.results import Check, OpenStep, WorkloadResult

MIN_KEPT_UP: Final = 0.9
"""Answered over offered rate at 70 % of the capacity."""
MAX_GENERATOR_SHARE: Final = 0.3
"""Of all CPU time; a generator that uses more measures itself."""
MAX_SLOWDOWN: Final = 6.0
"""Median latency at half the capacity over that of an unloaded server; a queue with two servers makes it 1.3."""
MAX_TAIL: Final = 20.0
"""99th percentile at half the capacity over the unloaded median."""


def checks_of(result: WorkloadResult) -> list[Check]:
    """The checks of one workload, each with a sentence that says what is wrong where it does not hold."""
    name, unusable = f"{result.target}, {result.workload}", unusable_calls(result)
    found = [Check(f"{name}: {unusable} calls ended without an answer or a refusal, or with another answer than before.", unusable, 0, unusable == 0)]
    capacity = 0.0 if result.capacity is None else result.capacity.rate
    found.append(Check(f"{name}: the capacity is {capacity:g} images/s.", capacity, 0, capacity > 0))
    for step in result.open:
        found += _of_step(name, step, result)
    return found


def unusable_calls(result: WorkloadResult) -> int:
    """Calls that ended without an answer or a refusal, or with another answer than before. No noise of a machine makes them."""
    steps = [step for step in (*result.search, result.capacity, *result.open) if step is not None]
    return sum(step.ends.lost + step.ends.wrong for step in steps)


def _of_step(name: str, step: OpenStep, result: WorkloadResult) -> list[Check]:
    load = f"at {step.share:.0%} of its capacity"
    found = []
    if step.share <= 0.7:
        text = f"{name}: {load} the server answered {step.kept_up:.2f} of what was offered; at least {MIN_KEPT_UP:g} is wanted."
        found.append(Check(text, step.kept_up, MIN_KEPT_UP, step.kept_up >= MIN_KEPT_UP))
    share = step.usage.generator_share
    if share is not None:
        text = f"{name}: {load} the generator used {share:.0%} of all CPU time; at most {MAX_GENERATOR_SHARE:.0%} is wanted."
        found.append(Check(text, share, MAX_GENERATOR_SHARE, share <= MAX_GENERATOR_SHARE))
    unloaded = None if result.unloaded is None else result.unloaded.latency
    if step.share <= 0.5 and unloaded is not None:
        for what, value, limit in (
            ("median", None if step.latency is None else step.latency.p50 / unloaded.p50, MAX_SLOWDOWN),
            ("99th percentile", None if step.latency is None else step.latency.p99 / unloaded.p50, MAX_TAIL),
        ):
            words = "does not exist" if value is None else f"is {value:.1f} times the unloaded median"
            text = f"{name}: {load} the {what} of the latency {words}; at most {limit:g} times is wanted."
            found.append(Check(text, value, limit, value is not None and value <= limit))
    return found


def failures(checks: Sequence[Check]) -> list[str]:
    """The sentences of the checks that do not hold."""
    return [check.what for check in checks if not check.holds]
