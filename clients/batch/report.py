"""The report of a batch: one page with its rate, findings, failures, drift of focus and score, and slowest images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import jinja2
import numpy as np
import pyarrow as pa
from markupsafe import Markup
from pyarrow import compute

from clients.batch.charts import Band, band_chart, line_chart
from clients.batch.images import is_remote, local_path
from clients.batch.plan import Plan
from clients.batch.rows import ANSWERED
from services.common.image_files import shown, shown_text

_FOLDER: Final = Path(__file__).parent
_BINS: Final = 40
_SLOWEST: Final = 10
_FAILURES: Final = 12
_FEWEST: Final = 5
"""Images of a bin of a chart, at least."""


@dataclass(frozen=True)
class _Share:
    name: str
    count: int
    percent: float


@dataclass(frozen=True)
class _Failure:
    reason: str
    count: int
    example: str
    message: str


def render_batch_report(plan: Plan, results: pa.Table, created: datetime | None = None) -> str:
    """Render the report.

    Args:
        plan: of the batch.
        results: merged rows, see ``rows.SCHEMA``.
        created: when; by default now.
    """
    answered = results.filter(compute.equal(results["status"], ANSWERED))
    failed = results.filter(compute.not_equal(results["status"], ANSWERED))
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(_FOLDER), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["shown"] = shown
    return environment.get_template("report.html.j2").render(
        created=(created or datetime.now(UTC)).strftime("%Y-%m-%d %H:%M UTC"),
        plan=plan,
        images=len(results),
        answered=len(answered),
        failed=len(failed),
        set_aside=compute.sum(compute.equal(results["status"], "set_aside")).as_py() or 0,
        repeated=compute.sum(compute.greater(results["attempts"], 1)).as_py() or 0,
        cells=compute.sum(answered["cells_total"]).as_py() or 0,
        provenance=_provenance(answered),
        findings=_findings(answered),
        failures=_failures(failed),
        **_times(results),
        blur=_drift(answered, answered["blur"].to_pylist(), "blur of the sharpest edges, px"),
        focus=_drift(answered, [_median(c, "focus_before") for c in answered["cells"].to_pylist()], "focus score of the cells"),
        score=_drift(answered, [_mean(c, "blast_probability") for c in answered["cells"].to_pylist()], "mean blast probability"),
        slowest=_slowest(answered),
    )


def _findings(answered: pa.Table) -> list[_Share]:
    counts = Counter(answered["finding"].to_pylist())
    return [_Share(name, count, 100.0 * count / len(answered)) for name, count in counts.most_common()]


def _provenance(answered: pa.Table) -> list[str]:
    names = ("release", "detects", "engine", "service_version")
    made = Counter(zip(*(answered[name].to_pylist() for name in names), strict=True))
    return [
        f"release {release} (detects {detects.replace('_', ' ')}), engine {engine or 'none needed'}, services {version}: {count:,} images"
        for (release, detects, engine, version), count in made.most_common()
    ]


def _failures(failed: pa.Table) -> list[_Failure]:
    reasons = Counter(failed["error_reason"].to_pylist())
    first = {row["error_reason"]: row for row in reversed(failed.select(["error_reason", "error_message", "uri"]).to_pylist())}
    return [
        _Failure(reason, count, _name(first[reason]["uri"]), shown_text(first[reason]["error_message"]))
        for reason, count in reasons.most_common(_FAILURES)
    ]


def _times(results: pa.Table) -> dict[str, Any]:
    """Duration and rate. A batch that was resumed has pauses in it."""
    finished = np.sort(results["finished_at"].cast(pa.int64()).to_numpy() / 1000.0)
    seconds = float(finished[-1] - finished[0])
    if seconds <= 0.0:
        return {"duration": "", "rate": 0.0, "rates": Markup("")}
    edges = np.linspace(finished[0], finished[-1], min(_BINS, max(2, len(finished) // _FEWEST)) + 1)
    counts, _ = np.histogram(finished, edges)
    width = float(edges[1] - edges[0])
    unit, divisor = ("minutes", 60.0) if seconds > 300 else ("seconds", 1.0)
    points = [((float(edge) + width / 2 - float(edges[0])) / divisor, count / width) for edge, count in zip(edges, counts, strict=False)]
    return {
        "duration": _duration(seconds),
        "rate": (len(finished) - 1) / seconds,
        "rates": line_chart(points, f"{unit} since the first image", "images a second"),
    }


def _drift(answered: pa.Table, values: Sequence[float | None], up: str) -> Markup:
    """Median and the range of 10 to 90 % along the manifest."""
    pairs = [(line, value) for line, value in zip(answered["line"].to_pylist(), values, strict=True) if value is not None]
    if not pairs:
        return Markup("")
    bins = np.array_split(np.array(pairs), min(_BINS, max(1, len(pairs) // _FEWEST)))
    bands = [Band(float(part[:, 0].mean()), *(float(q) for q in np.quantile(part[:, 1], (0.1, 0.5, 0.9)))) for part in bins]
    return band_chart(bands, "line of the manifest", up)


def _slowest(answered: pa.Table) -> list[dict[str, Any]]:
    order = compute.sort_indices(answered, [("milliseconds", "descending")])[:_SLOWEST]
    rows = answered.take(order).select(["uri", "milliseconds", "width", "height", "cells_total"]).to_pylist()
    return [{**row, "uri": _name(row["uri"])} for row in rows]


def _median(cells: Sequence[dict[str, Any]], name: str) -> float | None:
    values = [cell[name] for cell in cells if cell[name] is not None]
    return float(np.median(values)) if values else None


def _mean(cells: Sequence[dict[str, Any]], name: str) -> float | None:
    values = [cell[name] for cell in cells if cell[name] is not None]
    return float(np.mean(values)) if values else None


def _name(uri: str) -> str:
    """The last two parts of a path."""
    parts = uri.split("/") if is_remote(uri) else local_path(uri).parts
    return shown("/".join(parts[-2:]))


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{seconds:.0f} s" if seconds < 120 else f"{minutes} min" if not hours else f"{hours} h {minutes} min"
