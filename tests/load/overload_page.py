"""The page of the overload test."""

from __future__ import annotations

import math

from matplotlib.figure import Figure

from tests.load.overload_results import OverloadReport, OverloadResult, OverloadRun
from tests.load.page import machine_facts, page
from tests.load.plots import COLOURS, colour_of, grid, memory_axis, shared_legend
from tests.load.targets import TITLES


def overload_page(report: OverloadReport) -> str:
    """All results on one page."""
    heading = (
        "target, workload, run",
        "peak/s",
        "goodput/s",
        "of peak",
        "of rest",
        "calm p99 ms",
        "p99 ms",
        "refusal ms",
        "refused",
        "lost",
        "memory",
        "recovery s",
        "generator",
    )
    rows = [
        (f"{result.target}, {result.workload}, {number}", *_row(run)) for result in report.results for number, run in enumerate(result.runs, start=1)
    ]
    facts = machine_facts(report.machine, report.options, complete=report.complete)
    plots = {}
    for result in report.results:
        if result.runs:
            title = f"{TITLES.get(result.target, result.target)}: {result.workload}"
            plots[f"{title}: the last run, second by second"] = course(result.runs[-1], report.overload_seconds)
            if any(run.memory for run in result.runs):
                plots[f"{title}: memory in all runs"] = memory(result, report.overload_seconds)
    checks = [check for result in report.results for check in result.checks]
    return page("Overload test", facts, {"Runs": (heading, rows)}, plots, checks)


def course(run: OverloadRun, seconds: float) -> Figure:
    """How calls ended, and the latency of the interactive ones, in each second."""
    figure, (ends, waiting) = grid(2)
    at = [number + 0.5 for number in range(len(run.seconds))]
    kinds = {
        "batch, refused": ([second.batch_refused for second in run.seconds], COLOURS[6]),
        "batch, answered": ([second.batch_answered for second in run.seconds], COLOURS[0]),
        "interactive, answered": ([second.interactive_answered for second in run.seconds], COLOURS[1]),
        "interactive, refused": ([second.interactive_refused for second in run.seconds], COLOURS[3]),
        "lost or wrong": ([second.other for second in run.seconds], "#b3261e"),
    }
    for name, (values, colour) in kinds.items():
        if any(values):
            ends.plot(at, values, color=colour, label=name, lw=1.3)
    ends.set(title="calls that ended in each second", xlabel="seconds since the overload began", ylabel="calls per second", ylim=(0, None))
    medians = [math.nan if second.interactive_p50_ms is None else second.interactive_p50_ms for second in run.seconds]
    waiting.plot(at, medians, ".-", color=COLOURS[1], lw=1, label="interactive, median latency of the second")
    if run.calm is not None:
        waiting.axhline(run.calm.p50, color="#555555", ls="--", lw=1, label="p50 at 70 % load, without overload")
        waiting.axhline(run.calm.p99, color="#555555", ls=":", lw=1, label="p99 at 70 % load, without overload")
    waiting.set(title="latency of interactive calls", xlabel="seconds since the overload began", ylabel="latency, ms", ylim=(0, None))
    for axis in (ends, waiting):
        axis.axvspan(0, seconds, color=COLOURS[0], alpha=0.06, lw=0, label="overload" if axis is waiting else None)
        axis.set_xlim(0, len(run.seconds))
    shared_legend(figure, [ends, waiting])
    return figure


def memory(result: OverloadResult, seconds: float) -> Figure:
    """Memory of each part in each run."""
    figure, (axis,) = grid(1)
    for number, run in enumerate(result.runs):
        for part, series in run.memory.items():
            axis.plot(series.seconds, series.rss_mib, color=colour_of(part), lw=1.2, label=part if number == 0 else None)
    axis.axvspan(0, seconds, color=COLOURS[0], alpha=0.06, lw=0, label="overload")
    axis.set(xlabel="seconds since the overload began", xlim=(0, None))
    memory_axis(axis)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    figure.set_size_inches(9.0, 4.0)
    return figure


def _row(run: OverloadRun) -> tuple[str, ...]:
    ends = (run.calm_ends, run.interactive_ends, run.batch_ends)
    rates = (run.peak.rate, run.goodput)
    values = (
        None if run.calm is None else run.calm.p99,
        None if run.interactive is None else run.interactive.p99,
        run.refusal_ms,
    )
    counts = (sum(end.refused for end in ends), sum(end.lost + end.wrong for end in ends))
    last = (run.growth, run.recovery, run.usage.generator_share)
    shares = (run.kept, run.kept_of_rest)
    return (
        *(_text(v, 1) for v in rates),
        *(_text(v, 2) for v in shares),
        *(_text(v, 1) for v in values),
        *(str(count) for count in counts),
        *(_text(v, 2) for v in last),
    )


def _text(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
