"""One trace through every hop and into Triton; and, with tracing off, the caller's trace id in every service's log."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from dl4all.diagnosis.v1 import diagnosis_pb2_grpc
from dl4all_client import diagnose_request
from services.common.parts import SERVICES
from tests.running import Stack, eventually

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
ATTEMPTS = 3
"""Traced calls that are made at most: exporters drop spans that they cannot send in their time, as on a machine that is busy elsewhere."""
PARENT = "00f067aa0ba902b7"
EXPECTED = {f"dl4all-{name}" for name in (*SERVICES, "triton")}
PROTOBUF = "application/x-protobuf"


class Collector:
    """Receives spans over OTLP/HTTP, in protobuf (the services) and in JSON (Triton)."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Span]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.take(body, self.headers.get("Content-Type", ""))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", PROTOBUF)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self, body: bytes, kind: str) -> None:
        if kind.startswith(PROTOBUF):
            request = ExportTraceServiceRequest.FromString(body)
        else:
            request = json_format.ParseDict(_with_base64_identifiers(json.loads(body)), ExportTraceServiceRequest(), ignore_unknown_fields=True)
        for resource in request.resource_spans:
            service = next(a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
            self.spans += [(service, span) for scope in resource.scope_spans for span in scope.spans]

    def of(self, trace: str) -> dict[str, tuple[str, Span]]:
        """Spans of a trace by their identifier, each with its service."""
        return {span.span_id.hex(): (service, span) for service, span in self.spans if span.trace_id.hex() == trace}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _with_base64_identifiers(form: dict) -> dict:
    """OTLP's JSON has hexadecimal identifiers where protobuf's JSON has base64."""
    import base64

    for resource in form["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                for name in ("traceId", "spanId", "parentSpanId"):
                    if name in span:
                        span[name] = base64.b64encode(bytes.fromhex(span[name])).decode()
    return form


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
    """Gaps of a trace: parts that sent no span of it, and spans without their parent; empty where it is complete."""
    found = collector.of(trace)
    silent = sorted(EXPECTED - {service for service, _ in found.values()})
    orphans = sorted(f"{service}: {span.name}" for service, span in found.values() if span.parent_span_id.hex() not in {*found, PARENT})
    return ", ".join([*(f"nothing of {service}" for service in silent), *(f"no parent of {orphan}" for orphan in orphans)])


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
    edges = set()
    for service, span in spans.values():
        parent = span.parent_span_id.hex()
        assert parent in spans or parent == PARENT, span.name
        edges.add((spans[parent][0] if parent in spans else "caller", service))
    assert {
        ("caller", "dl4all-gateway"),
        ("dl4all-gateway", "dl4all-patching"),
        ("dl4all-gateway", "dl4all-preprocessing"),
        ("dl4all-gateway", "dl4all-classification"),
        ("dl4all-gateway", "dl4all-retrieval"),
        ("dl4all-classification", "dl4all-triton"),
    } <= edges
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
