"""The contract of telemetry: every metric, log field and span, with unit and meaning; and the page that is made of it.

    python -m deploy.observability.telemetry

Writes ``docs/telemetry.md``. A test fails when the page is out of date.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import mdformat
import yaml

SCHEMA: Final = Path(__file__).parent / "schema"
PAGE: Final = Path(__file__).parents[2] / "docs" / "telemetry.md"
_OPTIONS: Final = {"wrap": 120, "number": True, "plugin": {"tables": {"compact_tables": True}}}
"""As `.mdformat.toml` has them."""


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        type: counter, gauge or histogram.
        unit: of its value.
        labels: names of its labels, in order.
        meaning: what it says; the help text of its page.
    """

    type: str
    unit: str
    labels: tuple[str, ...]
    meaning: str


@dataclass(frozen=True)
class Event:
    """A line of the log, or a span.

    Attributes:
        name: of the line, or of the span.
        kind: level of the line, or kind of the span.
        fields: names of its own fields or attributes; some may be missing.
        meaning: what it says.
    """

    name: str
    kind: str
    fields: tuple[str, ...]
    meaning: str


@dataclass(frozen=True)
class Telemetry:
    """The whole contract.

    Attributes:
        metrics: by the name of their samples (of a histogram, without suffix).
        labels: meaning of labels.
        events: lines of the logs, by their event.
        fields: meaning of their fields.
        spans: by a name of their own.
        attributes: meaning of their attributes.
    """

    metrics: Mapping[str, Metric]
    labels: Mapping[str, str]
    events: Mapping[str, Event]
    fields: Mapping[str, str]
    spans: Mapping[str, Event]
    attributes: Mapping[str, str]


def read_telemetry(folder: Path = SCHEMA) -> Telemetry:
    """Read the contract.

    Raises:
        KeyError, TypeError: a file lacks something.
    """
    metrics, logs, spans = (_read(folder / f"{name}.yaml") for name in ("metrics", "logs", "spans"))
    return Telemetry(
        {name: Metric(m["type"], m["unit"], tuple(m["labels"]), m["meaning"]) for name, m in metrics["metrics"].items()},
        metrics["labels"],
        {name: Event(name, e["level"], tuple(e["fields"]), e["meaning"]) for name, e in logs["events"].items()},
        logs["fields"],
        {name: Event(s["name"], s["kind"], tuple(s["attributes"]), s["meaning"]) for name, s in spans["spans"].items()},
        spans["attributes"],
    )


def telemetry_page(contract: Telemetry) -> str:
    """The page, as Markdown."""
    metrics = [(f"`{name}`", m.type, m.unit, _names(m.labels), m.meaning) for name, m in contract.metrics.items()]
    events = [(f"`{name}`", e.kind, _names(e.fields), e.meaning) for name, e in contract.events.items()]
    spans = [(f"`{s.name}`", s.kind, _names(s.fields), s.meaning) for s in contract.spans.values()]
    parts = [
        "# Telemetry",
        "This page is made of `deploy/observability/schema/` by `python -m deploy.observability.telemetry`. Tests hold what services emit against"
        " it: nothing else is emitted, and everything here is. [Services](services.md#metrics) says how to use it.",
        "No telemetry holds an image, a pixel, a file name or the pseudonym of a specimen. A test sends marks in every field that callers fill, and"
        " looks for them in logs, metrics and spans. The one text of a caller that is logged is the identifier of the call; do not put names"
        " of patients into it.",
        "## Metrics",
        "Each part serves them for Prometheus. Counters and histograms start with the process. Triton has its own (`nv_inference_*`).",
        _table(("metric", "type", "unit", "labels", "meaning"), metrics),
        _table(("label", "meaning"), [(f"`{name}`", meaning) for name, meaning in contract.labels.items()]),
        "## Logs",
        "One JSON object a line on standard error. Each has `event`, `level`, `timestamp` and `service`.",
        _table(("event", "level", "own fields", "meaning"), events),
        _table(("field", "meaning"), [(f"`{name}`", meaning) for name, meaning in contract.fields.items()]),
        "## Spans",
        "With `DL4ALL_TRACING=true`, of every part and of Triton, as one tree: the gateway, below it the part that it calls, below that Triton.",
        _table(("span", "kind", "attributes", "meaning"), spans),
        _table(("attribute", "meaning"), [(f"`{name}`", meaning) for name, meaning in contract.attributes.items()]),
    ]
    return mdformat.text("\n\n".join(parts) + "\n", options=_OPTIONS, extensions={"tables"})


def _read(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heading, ["--"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(telemetry_page(read_telemetry()), encoding="utf-8")
