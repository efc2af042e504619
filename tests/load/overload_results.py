"""Results of the overload test, and what is computed from its calls. Times are milliseconds where a name says so, else seconds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.load.calls import Call, Outcome
from tests.load.figures import percentile
from tests.load.results import Check, ClosedStep, Ends, Latency, Machine, Usage
from tests.load.watching import Series

MIN_GOODPUT: Final = 0.9
"""Answers per second under overload, over those of the peak just before."""
MAX_REFUSAL_MS: Final = 50.0
"""Median time to a refusal."""
MAX_TAIL: Final = 2.0
"""99th percentile of interactive calls under overload, over that at 70 % load without it."""
MAX_REFUSED: Final = 0.01
"""Share of the interactive calls under overload that may be refused."""
MAX_GROWTH: Final = 1.1
"""Memory in the last third of the overload, over that in the second third."""
MAX_RECOVERY: Final = 5.0
"""Seconds after the overload until latency is as before."""
STEADY_AFTER: Final = 2.0
"""Seconds of an overload that do not count, because queues fill."""


@dataclass(frozen=True)
class Second:
    """One second of an overload: how many calls ended how in it, and the median latency in ms of the interactive calls that were sent in it."""

    batch_answered: int
    batch_refused: int
    interactive_answered: int
    interactive_refused: int
    other: int
    interactive_p50_ms: float | None


@dataclass
class OverloadRun:
    """One run: interactive calls alone, then overload, then the time after it.

    Attributes:
        calm: interactive calls alone at 70 % of the capacity.
        calm_ends: how those calls ended.
        peak: just before the overload, as many callers as reached the capacity.
        interactive: those under overload.
        goodput: answers per second of any priority under overload.
        refusal_ms: median time to a refusal; None where none was refused.
        interactive_ends, batch_ends: how the calls of the overload ended.
        growth: most growth of a part's memory, last third over second third of the overload.
        recovery: seconds until latency is as before; None where it is not within the time that was watched.
        usage: during the overload.
        seconds: course of it.
        memory: by part.
    """

    calm: Latency | None
    calm_ends: Ends
    peak: ClosedStep
    interactive: Latency | None
    goodput: float
    refusal_ms: float | None
    interactive_ends: Ends
    batch_ends: Ends
    growth: float | None
    recovery: float | None
    usage: Usage
    seconds: list[Second] = field(default_factory=list)
    memory: dict[str, Series] = field(default_factory=dict)

    @property
    def kept(self) -> float | None:
        """Goodput over the peak; None without a peak."""
        return self.goodput / self.peak.rate if self.peak.rate else None

    @property
    def kept_of_rest(self) -> float | None:
        """Goodput over the peak, each for the part of the machine that the generator left; ``kept`` where it is on another machine."""
        return None if self.kept is None else self.kept * _left(self.peak.usage) / _left(self.usage)


@dataclass
class OverloadResult:
    """The overload test of one target."""

    target: str
    workload: str
    capacity: ClosedStep | None = None
    runs: list[OverloadRun] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)


@dataclass
class OverloadReport:
    """A whole overload test; ``complete`` is False where it was ended early."""

    machine: Machine
    options: dict[str, str]
    overload_seconds: float
    results: list[OverloadResult] = field(default_factory=list)
    complete: bool = False


def goodput(calls: Sequence[Call], seconds: float) -> float:
    """Answers per second while the overload lasts, without its first ``STEADY_AFTER`` seconds."""
    answered = sum(call.outcome is Outcome.ANSWERED and STEADY_AFTER <= call.ended < seconds for call in calls)
    return answered / (seconds - STEADY_AFTER)


def refusal_ms(calls: Sequence[Call]) -> float | None:
    """Median time from the intended sending to a refusal, ms."""
    refused = [1000.0 * call.latency for call in calls if call.outcome is Outcome.REFUSED]
    return percentile(refused, 0.5) if refused else None


def growth(series: Sequence[Series], seconds: float) -> float | None:
    """Most growth of the memory of a part: mean of the last third of the overload over mean of the second; None without samples."""
    found = []
    for one in series:
        thirds = [
            [rss for at, rss in zip(one.seconds, one.rss_mib, strict=True) if low * seconds / 3 <= at < (low + 1) * seconds / 3] for low in (1, 2)
        ]
        if all(thirds) and statistics.fmean(thirds[0]) > 0:
            found.append(statistics.fmean(thirds[1]) / statistics.fmean(thirds[0]))
    return max(found, default=None)


def recovery(calls: Sequence[Call], end: float, watched: float, normal: float) -> float | None:
    """How long after an overload latency is as before: until the last second whose calls took too long.

    Args:
        calls: interactive calls.
        end: of the overload, seconds.
        watched: how long calls went on after it, seconds.
        normal: the median latency of the calls of a second is at most this, seconds.

    Returns:
        Seconds after the end, whole; 0 where no second was too slow. None where the last of them was.
    """
    last = 0
    for second in range(math.floor(watched)):
        sent = [call for call in calls if second <= call.intended - end < second + 1]
        slow = [call for call in sent if call.outcome is not Outcome.ANSWERED or call.latency > normal]
        if sent and 2 * len(slow) > len(sent):
            last = second + 1
    return None if last == math.floor(watched) else float(last)


def by_second(interactive: Sequence[Call], batch: Sequence[Call], seconds: float) -> list[Second]:
    """The course of an overload."""
    found = []
    for second in range(math.ceil(seconds)):
        ended = [call for call in interactive if second <= call.ended < second + 1]
        batch_ended = [call for call in batch if second <= call.ended < second + 1]
        answered, refused = (sum(call.outcome is outcome for call in batch_ended) for outcome in (Outcome.ANSWERED, Outcome.REFUSED))
        own, turned_away = (sum(call.outcome is outcome for call in ended) for outcome in (Outcome.ANSWERED, Outcome.REFUSED))
        sent = [1000.0 * call.latency for call in interactive if second <= call.intended < second + 1 and call.outcome is Outcome.ANSWERED]
        other = len(ended) + len(batch_ended) - answered - refused - own - turned_away
        found.append(Second(answered, refused, own, turned_away, other, round(percentile(sent, 0.5), 1) if sent else None))
    return found


def checks_of(result: OverloadResult) -> list[Check]:
    """What an overload must leave intact; medians of the runs."""
    if result.capacity is None or not result.runs:
        return []
    name, runs = f"{result.target}, {result.workload}", result.runs
    kept = _median([run.kept_of_rest for run in runs])
    refusal = _median([run.refusal_ms for run in runs])
    calm, under = (
        _median([None if latency is None else latency.p99 for latency in ((run.calm, run.interactive)[i] for run in runs)]) for i in (0, 1)
    )
    tail = under / calm if under is not None and calm else None
    ends = [end for run in runs for end in (run.calm_ends, run.interactive_ends, run.batch_ends)]
    lost = float(sum(end.lost + end.wrong for end in ends))
    refused, timed = sum(end.refused for end in ends), sum(end.refusals_with_time for end in ends)
    own = [run.interactive_ends for run in runs]
    interactive_refused = sum(end.refused for end in own) / max(sum(end.refused + end.answered for end in own), 1)
    recoveries = [run.recovery for run in runs]
    recovered = None if None in recoveries else max(seconds for seconds in recoveries if seconds is not None)
    grown = _median([run.growth for run in runs])
    found = [
        _at_least(f"{name}: answers per second under overload over the peak, of what the generator left", kept, MIN_GOODPUT),
        _at_most(f"{name}: median time to a refusal, ms", refusal, MAX_REFUSAL_MS),
        _at_most(f"{name}: p99 of interactive calls under overload over that at 70 % load", tail, MAX_TAIL),
        _at_most(f"{name}: calls that ended without an answer or a refusal, or with another answer", lost, 0.0),
        _at_most(f"{name}: refusals that do not say when to try again", float(refused - timed), 0.0),
        _at_most(f"{name}: share of the interactive calls under overload that were refused", interactive_refused, MAX_REFUSED),
        _at_most(f"{name}: seconds until latency is as before", recovered, MAX_RECOVERY),
    ]
    if any(run.memory for run in runs):
        found.append(_at_most(f"{name}: memory in the last third of the overload over the second", grown, MAX_GROWTH))
    return found


def _left(usage: Usage) -> float:
    """Part of the machine that the generator left."""
    return 1.0 - (usage.generator_share or 0.0) * usage.busy


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _at_least(what: str, value: float | None, limit: float) -> Check:
    return Check(f"{what}: {_text(value)}, at least {limit:g} is wanted.", value, limit, value is not None and value >= limit)


def _at_most(what: str, value: float | None, limit: float) -> Check:
    return Check(f"{what}: {_text(value)}, at most {limit:g} is wanted.", value, limit, value is not None and value <= limit)


def _text(value: float | None) -> str:
    return "none was measured" if value is None else f"{value:.3g}"
