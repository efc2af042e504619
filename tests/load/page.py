"""One HTML page that needs no other file: what was measured where, a table, and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Final

from matplotlib.figure import Figure

from tests.load.plots import svg
from tests.load.results import Check, ClosedStep, LoadReport, Machine, OpenStep

Row = Sequence[object]
_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #1d2329; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.88rem; }
th, td { padding: 0.25rem 0.7rem; border-bottom: 1px solid #d8dde2; text-align: right; }
th { border-bottom: 2px solid #8b949e; } td:first-child, th:first-child { text-align: left; }
.wide { overflow-x: auto; } svg { max-width: 100%; height: auto; } .no { color: #b3261e; font-weight: 600; } .note { color: #57606a; }
"""


def page(
    title: str, facts: Sequence[str], tables: Mapping[str, tuple[Row, Sequence[Row]]], plots: Mapping[str, Figure], checks: Sequence[Check]
) -> str:
    """A page.

    Args:
        title: of the page.
        facts: sentences on what was measured where.
        tables: heading and rows, by title.
        plots: by title.
        checks: thresholds; those that do not hold are marked.
    """
    parts = [f"<h1>{escape(title)}</h1>", *(f'<p class="note">{escape(fact)}</p>' for fact in facts)]
    if checks:
        lines = "".join(f"<li{'' if check.holds else ' class=no'}>{escape(check.what)}</li>" for check in checks)
        parts.append(f"<h2>Checks</h2><ul>{lines}</ul>")
    parts += [f"<h2>{escape(name)}</h2>{_table(heading, rows)}" for name, (heading, rows) in tables.items()]
    parts += [f"<h2>{escape(name)}</h2>{svg(figure)}" for name, figure in plots.items()]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def machine_facts(machine: Machine, options: Mapping[str, str], *, complete: bool) -> list[str]:
    """Where, when and how it was measured."""
    ended = [] if complete else ["It was ended early; this is what there was."]
    chosen = ", ".join(f"{name} {value}" for name, value in options.items())
    return [f"{machine.processor}, {machine.cores} cores, Python {machine.python}, {machine.started}. {chosen}.", *ended]


def load_tables(report: LoadReport) -> dict[str, tuple[Row, Sequence[Row]]]:
    """The figures of a load test as tables."""
    heading = ("target, workload", "in flight", "images/s", "cells/image", "p50 ms", "p99 ms", "CPU ms/image", "generator", "peak MiB")
    capacities = [
        (f"{result.target}, {result.workload}", *_closed(result.capacity, result.cells_per_image))
        for result in report.results
        if result.capacity is not None
    ]
    loads = [(f"{result.target}, {result.workload}", *_open(step)) for result in report.results for step in result.open]
    open_heading = ("target, workload", "load", "offered/s", "kept up", "p50 ms", "p95 ms", "p99 ms", "refused", "lost", "wrong", "generator")
    return {"Capacity": (heading, capacities), "Open loop": (open_heading, loads)}


def write_page(text: str, path: Path) -> None:
    """Write a page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _closed(step: ClosedStep, cells: float) -> Row:
    latency, usage = step.latency, step.usage
    used = sum(ms for part, ms in usage.cpu_ms_per_image.items() if part != "generator")
    times = ("", "") if latency is None else (f"{latency.p50:.0f}", f"{latency.p99:.0f}")
    return (
        step.in_flight,
        f"{step.rate:.1f}",
        f"{cells:.1f}",
        *times,
        f"{used:.1f}",
        _share(usage.generator_share),
        f"{sum(usage.peak_mib.values()):.0f}",
    )


def _open(step: OpenStep) -> Row:
    latency, ends = step.latency, step.ends
    times = ("", "", "") if latency is None else (f"{latency.p50:.0f}", f"{latency.p95:.0f}", f"{latency.p99:.0f}")
    counted = (ends.refused, ends.lost, ends.wrong)
    return (f"{step.share:.0%}", f"{step.offered:.1f}", f"{step.kept_up:.2f}", *times, *counted, _share(step.usage.generator_share))


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _table(heading: Row, rows: Sequence[Row]) -> str:
    head = "".join(f"<th>{escape(str(cell))}</th>" for cell in heading)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
