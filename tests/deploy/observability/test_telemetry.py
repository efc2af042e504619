"""The contract of telemetry holds what the code can emit, and the page is made of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import Counter, Gauge, Histogram

from deploy.observability.telemetry import PAGE, Event, Telemetry, read_telemetry, telemetry_page
from services.common import metrics
from tests.paths import ROOT

_OF_EVERY_LINE = {"event", "level", "timestamp", "service", "trace_id"}
_LEVEL = {"exception": "error"}


@pytest.fixture(scope="module")
def contract() -> Telemetry:
    return read_telemetry()


def test_the_page_is_fresh(contract: Telemetry) -> None:
    assert PAGE.read_text(encoding="utf-8") == telemetry_page(contract), "make it anew: python -m deploy.observability.telemetry"


def test_every_metric_is_in_the_contract_and_every_one_of_the_contract_is_there(contract: Telemetry) -> None:
    types: dict[type, str] = {Counter: "counter", Gauge: "gauge", Histogram: "histogram"}
    made = {}
    for metric in vars(metrics).values():
        if (kind := types.get(type(metric))) is not None:
            name = f"{metric._name}_total" if kind == "counter" else metric._name
            made[name] = (kind, tuple(metric._labelnames), metric._documentation)
    assert made == {name: (m.type, m.labels, m.meaning) for name, m in contract.metrics.items()}


def test_units_are_those_of_the_names(contract: Telemetry) -> None:
    for name, metric in contract.metrics.items():
        assert metric.unit, name
        assert (metric.unit == "s") == name.removesuffix("_total").endswith("_seconds"), name


def test_every_label_and_field_has_a_meaning_and_is_used(contract: Telemetry) -> None:
    assert {label for metric in contract.metrics.values() for label in metric.labels} == set(contract.labels)
    assert {field for event in contract.events.values() for field in event.fields} | _OF_EVERY_LINE == set(contract.fields)
    assert {attribute for span in contract.spans.values() for attribute in span.fields} == set(contract.attributes)


def test_every_line_that_the_code_logs_is_in_the_contract_and_no_other(contract: Telemetry) -> None:
    logged: dict[str, Event] = {}
    for path in sorted((ROOT / "services").rglob("*.py")):
        for event in _lines_of(path):
            fields = (*logged[event.name].fields, *event.fields) if event.name in logged else event.fields
            logged[event.name] = Event(event.name, event.kind, fields, "")
    assert {(e.name, e.kind) for e in logged.values()} == {(e.name, e.kind) for e in contract.events.values()}
    for name, event in logged.items():
        assert set(event.fields) <= {*contract.events[name].fields, *_OF_EVERY_LINE}, name


def _lines_of(path: Path) -> Iterator[Event]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "_log"):
            continue
        (event,) = node.args
        assert isinstance(event, ast.Constant), f"{path}: an event is one text, so that it can be looked for"
        level = node.func.attr
        fields = [keyword.arg for keyword in node.keywords if keyword.arg is not None]
        yield Event(str(event.value), _LEVEL.get(level, level), (*fields, *(["exception"] if level == "exception" else [])), "")
