"""One trace through every hop and into Triton; and, with tracing off, the caller's trace id in every service's log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial

import pytest

from dl4all.diagnosis.v1 import diagnosis_pb2_grpc
from dl4all_client import diagnose_request
from services.common.parts import SERVICES
from tests.running import Stack, eventually
from tests.span_collector import Collector

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
ATTEMPTS = 3
"""Traced calls that are made at most: exporters drop spans that they cannot send in their time, as on a machine that is busy elsewhere."""
PARENT = "00f067aa0ba902b7"
EXPECTED = {
    ("caller", "dl4all-gateway"),
    ("dl4all-gateway", "dl4all-patching"),
    ("dl4all-patching", "dl4all-triton"),
    ("dl4all-gateway", "dl4all-preprocessing"),
    ("dl4all-gateway", "dl4all-classification"),
    ("dl4all-classification", "dl4all-triton"),
    ("dl4all-gateway", "dl4all-retrieval"),
}
"""Which part has spans below those of which."""


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


@pytest.fixture(scope="module")
def traced(triton_installed: None, collector: Collector) -> Iterator[Stack]:
    settings = {"DL4ALL_TRACING": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.address, "OTEL_BSP_SCHEDULE_DELAY": "200"}
    made = Stack.make(settings)
    try:
        yield made.start()
    finally:
        made.end()


def _diagnose(stack: Stack, image: bytes, request_id: str, trace: str = TRACE) -> None:
    with stack["gateway"].channel() as channel:
        request = diagnose_request(image, request_id=request_id)
        metadata = (("traceparent", f"00-{trace}-{PARENT}-01"),)
        assert diagnosis_pb2_grpc.DiagnosisServiceStub(channel).Diagnose(request, timeout=60, metadata=metadata).diagnosis.cells


def _missing(collector: Collector, trace: str) -> str:
    """Gaps of a trace: parts that sent no span below another one, and spans without their parent; empty where it is complete."""
    found = collector.of(trace)
    orphans = sorted(f"{service}: {span.name}" for service, span in found.values() if span.parent_span_id.hex() not in {*found, PARENT})
    parents = {identifier: service for identifier, (service, _) in found.items()} | {PARENT: "caller"}
    edges = {(parents.get(span.parent_span_id.hex(), ""), service) for service, span in found.values()}
    return ", ".join([*(f"no {below} below {above}" for above, below in sorted(EXPECTED - edges)), *(f"no parent of {orphan}" for orphan in orphans)])


def _is_complete(collector: Collector, trace: str) -> bool:
    return not _missing(collector, trace)


def _complete_trace(stack: Stack, collector: Collector, image: bytes) -> str:
    for attempt in range(ATTEMPTS):
        trace = f"{int(TRACE, 16) + attempt:032x}"
        _diagnose(stack, image, f"traced-{attempt}", trace)
        try:
            eventually(partial(_is_complete, collector, trace), 20)
        except AssertionError:
            continue
        return trace
    raise AssertionError(f"no trace is complete; the last has {_missing(collector, trace)}")


def test_spans_of_every_service_and_of_triton_form_one_tree(traced: Stack, collector: Collector, phantom_cell: bytes) -> None:
    spans = collector.of(_complete_trace(traced, collector, phantom_cell))
    roots = [span for _, span in spans.values() if span.parent_span_id.hex() == PARENT]
    assert [span.name for span in roots] == ["dl4all.diagnosis.v1.DiagnosisService/Diagnose"]


def test_without_tracing_the_callers_trace_id_is_in_every_log(stack: Stack, phantom_cell: bytes) -> None:
    _diagnose(stack, phantom_cell, "untraced")
    for name in SERVICES:
        calls = [json.loads(line) for line in stack[name].log.read_text().splitlines() if '"call"' in line]
        mine = [call for call in calls if call.get("trace_id") == TRACE]
        assert mine, name
        assert {call["request_id"] for call in mine} == {"untraced"}
        assert all(call["service"] == name and call["code"] == "OK" for call in mine)
