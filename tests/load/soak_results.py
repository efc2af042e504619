"""Results of the soak test: what grew, and its page."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from matplotlib.figure import Figure

from tests.load.calls import Call, Outcome
from tests.load.figures import Slope, slope
from tests.load.page import machine_facts, page
from tests.load.plots import colour_of, grid, memory_axis, shared_legend
from tests.load.results import Check, Machine, Usage
from tests.load.targets import TITLES
from tests.load.watching import Series

MAX_MIB_PER_HOUR: Final = 16.0
MAX_SHARE_PER_HOUR: Final = 0.01
"""Memory may grow by the larger of these two, of its mean, and is still called constant."""
WARM_UP_SHARE: Final = 1 / 3
WARM_UP_SECONDS: Final = 600.0
HOUR: Final = 3600.0


@dataclass
class Totals:
    """Calls of a soak test, counted as they end: answers, refusals, calls without either, other answers than before, and slow ones."""

    answered: int = 0
    refused: int = 0
    lost: int = 0
    wrong: int = 0
    latency_seconds: float = 0.0
    slowest_seconds: float = 0.0

    def add(self, call: Call) -> None:
        """Count one call."""
        if call.outcome is Outcome.ANSWERED:
            self.answered += 1
            self.latency_seconds += call.latency
            self.slowest_seconds = max(self.slowest_seconds, call.latency)
        elif call.outcome is Outcome.REFUSED:
            self.refused += 1
        elif call.outcome is Outcome.WRONG:
            self.wrong += 1
        else:
            self.lost += 1


@dataclass(frozen=True)
class Growth:
    """What became of one part after the warm-up.

    Attributes:
        mean_mib: mean memory.
        mib_per_hour, low, high: slope of the memory and its confidence interval (95 %).
        descriptors, threads: median in the first and in the last third.
    """

    mean_mib: float
    mib_per_hour: float
    low: float
    high: float
    descriptors: tuple[float, float]
    threads: tuple[float, float]


@dataclass
class SoakResult:
    """The soak test of one workload on one target; ``offered`` is in images per second."""

    target: str
    workload: str
    offered: float = 0.0
    totals: Totals = field(default_factory=Totals)
    usage: Usage | None = None
    growth: dict[str, Growth] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    series: dict[str, Series] = field(default_factory=dict)


@dataclass
class SoakReport:
    """A whole soak test; ``complete`` is False where it was ended early."""

    machine: Machine
    options: dict[str, str]
    results: list[SoakResult] = field(default_factory=list)
    complete: bool = False


def warm_up(seconds: float) -> float:
    """Seconds at the start that do not count."""
    return min(WARM_UP_SHARE * seconds, WARM_UP_SECONDS)


def growth_of(series: Series) -> Growth | None:
    """What became of a part after the warm-up; None where there are too few samples to say."""
    last = max(series.seconds, default=0.0)
    kept = [i for i, at in enumerate(series.seconds) if at >= warm_up(last)]
    if len(kept) < 6:
        return None
    memory = [series.rss_mib[i] for i in kept]
    line: Slope = slope([series.seconds[i] for i in kept], memory).scaled(HOUR)
    numbers = (round(statistics.fmean(memory), 1), round(line.per_second, 2), round(line.low, 2), round(line.high, 2))
    return Growth(*numbers, _thirds([series.descriptors[i] for i in kept]), _thirds([series.threads[i] for i in kept]))


def conclude(result: SoakResult) -> None:
    """Fill growth and checks of a result."""
    name = f"{result.target}, {result.workload}"
    result.growth = {part: growth for part, series in result.series.items() if (growth := growth_of(series)) is not None}
    totals = result.totals
    unusable = totals.lost + totals.wrong
    result.checks = [
        Check(
            f"{name}: {unusable} of {totals.answered + totals.refused + unusable} calls without an answer or a refusal.", unusable, 0, unusable == 0
        )
    ]
    for part, growth in result.growth.items():
        limit = max(MAX_MIB_PER_HOUR, MAX_SHARE_PER_HOUR * growth.mean_mib)
        holds = growth.low <= 0.0 <= growth.high or growth.mib_per_hour <= limit
        text = f"{name}: {part} holds {growth.mean_mib:.0f} MiB and grows by {growth.mib_per_hour:.1f} ({growth.low:.1f} to {growth.high:.1f}) MiB an hour"
        result.checks.append(Check(f"{text}; {limit:.0f} is allowed.", growth.mib_per_hour, limit, holds))
        for what, (first, second) in (("open files", growth.descriptors), ("threads", growth.threads)):
            sentence = f"{name}: {part} has {first:g} {what} first and {second:g} last."
            result.checks.append(Check(sentence, second, first, second <= first))


def soak_page(report: SoakReport) -> str:
    """All results on one page."""
    heading = ("target, workload, part", "mean MiB", "MiB an hour", "from", "to", "open files", "threads")
    rows = [(f"{result.target}, {result.workload}, {part}", *_row(growth)) for result in report.results for part, growth in result.growth.items()]
    call_heading = ("target, workload", "images/s", "answered", "refused", "lost", "wrong", "mean ms", "slowest ms")
    calls = [(f"{result.target}, {result.workload}", result.offered, *_calls(result.totals)) for result in report.results]
    plots = {f"{TITLES.get(r.target, r.target)}: {r.workload}": course(r) for r in report.results if any(s.seconds for s in r.series.values())}
    facts = machine_facts(report.machine, report.options, complete=report.complete)
    checks = [check for result in report.results for check in result.checks]
    return page("Soak test", facts, {"Growth after the warm-up": (heading, rows), "Calls": (call_heading, calls)}, plots, checks)


def course(result: SoakResult) -> Figure:
    """Memory, open files and threads over time."""
    figure, axes = grid(3, columns=3)
    labels = ("memory, MiB", "open files", "threads")
    end = max((series.seconds[-1] for series in result.series.values() if series.seconds), default=0.0)
    for part, series in result.series.items():
        minutes = [at / 60.0 for at in series.seconds]
        columns: tuple[Sequence[float], ...] = (series.rss_mib, series.descriptors, series.threads)
        for axis, values in zip(axes, columns, strict=True):
            axis.plot(minutes, values, color=colour_of(part), lw=1.2, label=part)
    for axis, label in zip(axes, labels, strict=True):
        axis.axvspan(0, warm_up(end) / 60.0, color="#555555", alpha=0.1, lw=0, label="warm-up" if axis is axes[0] else None)
        axis.set(xlabel="minutes", ylabel=label, ylim=(0, None), xlim=(0, None))
    memory_axis(axes[0])
    shared_legend(figure, axes)
    return figure


def _thirds(values: Sequence[float]) -> tuple[float, float]:
    third = max(len(values) // 3, 1)
    return float(statistics.median(values[:third])), float(statistics.median(values[-third:]))


def _row(growth: Growth) -> tuple[str, ...]:
    ends = [f"{first:g}, then {second:g}" if first != second else f"{first:g}" for first, second in (growth.descriptors, growth.threads)]
    return (f"{growth.mean_mib:.1f}", f"{growth.mib_per_hour:.2f}", f"{growth.low:.2f}", f"{growth.high:.2f}", *ends)


def _calls(totals: Totals) -> tuple[object, ...]:
    mean = 1000.0 * totals.latency_seconds / max(totals.answered, 1)
    return (totals.answered, totals.refused, totals.lost, totals.wrong, f"{mean:.0f}", f"{1000.0 * totals.slowest_seconds:.0f}")
