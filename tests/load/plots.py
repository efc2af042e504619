"""Plots of load tests: labelled, in one style, as SVG that needs no other file."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from tests.load.results import LoadReport, OpenStep, WorkloadResult
from tests.load.targets import TITLES

COLOURS: Final = ("#1f6fb2", "#c4622d", "#3a8a4d", "#8059a8", "#8c6d31", "#b8437d", "#5b6770", "#2aa5a5")
PARTS: Final = ("embedded", "gateway", "patching", "preprocessing", "classification", "triton", "retrieval", "generator")
_COLUMN: Final = 5.4
_ROW: Final = 3.7


def colour_of(name: str, names: Sequence[str] = PARTS) -> str:
    """The colour of a part, the same in all plots."""
    return COLOURS[(names.index(name) if name in names else len(names)) % len(COLOURS)]


def svg(figure: Figure) -> str:
    """A figure as SVG, text as paths, without the XML header; the same figure always gives the same bytes."""
    out = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "dl4all", "svg.fonttype": "path"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def grid(count: int, columns: int = 2, height: float = _ROW) -> tuple[Figure, list[Axes]]:
    """So many axes, in rows; the rest of the last row is empty."""
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(_COLUMN * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axis in axes[count:]:
        axis.set_axis_off()
    for axis in axes[:count]:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes[:count]


def shared_legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """One legend below all axes, with each name once."""
    found = {name: handle for axis in axes for handle, name in zip(*axis.get_legend_handles_labels(), strict=True)}
    if found:
        columns = min(len(found), 3 if len(axes) < 3 else 4)
        figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=columns, fontsize=8, frameon=False)


def memory_axis(axis: Axes) -> None:
    """Memory in MiB, in a logarithmic scale where parts differ much: else the growth of a small one is not seen."""
    lines = [np.asarray(line.get_ydata(), np.float64) for line in axis.get_lines()]
    top, low = axis.get_ylim()[1], min((float(values.min()) for values in lines if values.size), default=0.0)
    if top > 4 * low > 0:
        axis.set_yscale("log")
        axis.set_ylim(low / 1.3, None)
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}" if f"{value:g}"[0] in "25" else ""))
        axis.set_ylabel("memory, MiB (logarithmic)")
    else:
        axis.set(ylabel="memory, MiB", ylim=(0, None))


def throughput(report: LoadReport) -> Figure:
    """Answers per second against calls in flight, a line for each workload, a panel for each target."""
    targets = _targets(report)
    figure, axes = grid(len(targets))
    for axis, target in zip(axes, targets, strict=True):
        for number, result in enumerate(_of(report, target)):
            colour = COLOURS[number]
            axis.plot(
                [step.in_flight for step in result.search], [step.rate for step in result.search], "o-", ms=4, color=colour, label=result.workload
            )
            if result.capacity is not None:
                axis.plot(result.capacity.in_flight, result.capacity.rate, "*", ms=14, color=colour, mec="white")
        axis.set(title=TITLES.get(target, target), xlabel="calls in flight", ylabel="answers per second", ylim=(0, None), xlim=(0, None))
    axes[0].plot([], [], "*", ms=11, color="#555555", mec="white", label="capacity, measured once more")
    shared_legend(figure, axes)
    return figure


def latencies(report: LoadReport) -> Figure:
    """Percentiles of the latency against load, a panel for each workload on each target."""
    results = [result for result in report.results if result.open]
    figure, axes = grid(max(len(results), 1))
    for axis, result in zip(axes, results, strict=False):
        steps = [step for step in result.open if step.latency is not None]
        unloaded = None if result.unloaded is None else result.unloaded.latency
        values: dict[str, Callable[[OpenStep], float]] = {
            "p99": lambda step: step.latency.p99 if step.latency else math.nan,
            "p95": lambda step: step.latency.p95 if step.latency else math.nan,
            "p50": lambda step: step.latency.p50 if step.latency else math.nan,
        }
        for number, (name, value) in enumerate(values.items()):
            axis.plot([100 * step.share for step in steps], [value(step) for step in steps], "o-", ms=4, color=COLOURS[number], label=name)
        if unloaded is not None:
            axis.axhline(unloaded.p50, color="#555555", ls="--", lw=1, label="p50, one call at a time")
        axis.set(title=_title(result), xlabel="offered load, % of capacity", ylabel="latency, ms", ylim=(0, None))
    shared_legend(figure, axes)
    return figure


def distributions(report: LoadReport) -> Figure:
    """Latency by percentile, a line for each load: how long the slowest one in a hundred took."""
    results = [result for result in report.results if result.open]
    figure, axes = grid(max(len(results), 1))
    for axis, result in zip(axes, results, strict=False):
        for number, step in enumerate(result.open):
            if step.latency is None:
                continue
            rarity = [1.0 / max(1.0 - share, 1.0 / (2 * step.latency.count)) for share in step.latency.shares]
            axis.plot(rarity, step.latency.quantiles, color=COLOURS[number], label=f"{step.share:.0%} of capacity")
        axis.set_xscale("log")
        axis.set_xticks([1, 2, 10, 100, 1000], ["0", "50", "90", "99", "99.9"])
        axis.minorticks_off()
        axis.set(title=_title(result), xlabel="percentile of calls", ylabel="latency, ms", ylim=(0, None))
    shared_legend(figure, axes)
    return figure


def cpu(report: LoadReport) -> Figure:
    """CPU time per image at the capacity, by part."""
    results = [result for result in report.results if result.capacity is not None]
    used = {_title(result): result.capacity.usage.cpu_ms_per_image for result in results if result.capacity is not None}
    return bars(used, "CPU time per image, ms", stacked=True)


def memory(report: LoadReport) -> Figure:
    """Most memory by part over all phases."""
    most = {}
    for result in report.results:
        steps = [step.usage.peak_mib for step in (result.capacity, *result.open) if step is not None]
        if steps and steps[0]:
            most[_title(result)] = {part: max(step[part] for step in steps) for part in steps[0]}
    return bars(most, "peak memory, MiB", stacked=True)


def bars(rows: Mapping[str, Mapping[str, float]], label: str, *, stacked: bool) -> Figure:
    """Horizontal bars by part, a row for each name."""
    names = list(rows)
    figure = Figure(figsize=(2 * _COLUMN, 1.4 + 0.5 * max(len(names), 1)), layout="constrained")
    axis = figure.subplots()
    parts = sorted({part for row in rows.values() for part in row}, key=lambda part: (PARTS.index(part) if part in PARTS else len(PARTS), part))
    left = [0.0] * len(names)
    for part in parts:
        widths = [rows[name].get(part, 0.0) for name in names]
        axis.barh(range(len(names)), widths, left=left if stacked else None, color=colour_of(part), label=part, height=0.62)
        left = [before + width for before, width in zip(left, widths, strict=True)]
    for row, total in enumerate(left):
        axis.annotate(f"{total:.0f}", (total, row), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.margins(x=0.08)
    axis.set_xlabel(label)
    axis.grid(axis="x", alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    if parts:
        figure.legend(loc="outside lower center", ncols=min(len(parts), 8), fontsize=8, frameon=False)
    return figure


def load_plots(report: LoadReport) -> dict[str, Figure]:
    """The plots of a load test by their titles; none where nothing was measured."""
    if not any(result.search for result in report.results):
        return {}
    drawn = {"Answers per second by calls in flight (closed loop)": throughput(report)}
    if any(result.open for result in report.results):
        drawn["Latency by load (open loop, from the intended time of sending)"] = latencies(report)
        drawn["Latency by percentile"] = distributions(report)
    if any(result.capacity is not None for result in report.results):
        drawn["CPU time per image at capacity"] = cpu(report)
    if any(result.capacity is not None and result.capacity.usage.peak_mib for result in report.results):
        drawn["Peak memory"] = memory(report)
    return drawn


def _title(result: WorkloadResult) -> str:
    return f"{TITLES.get(result.target, result.target)}: {result.workload}"


def _targets(report: LoadReport) -> list[str]:
    return list(dict.fromkeys(result.target for result in report.results if result.search))


def _of(report: LoadReport, target: str) -> list[WorkloadResult]:
    return [result for result in report.results if result.target == target and result.search]
