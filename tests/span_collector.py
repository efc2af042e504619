"""Receives spans, as a collector of OpenTelemetry does."""

from __future__ import annotations

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import Span

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
