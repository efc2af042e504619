"""W3C trace context through every hop; spans by OpenTelemetry where it is switched on, else none are made.

Without the SDK the API's own no-op tracer passes a caller's context on unchanged, so the logs of every service carry
the caller's trace id either way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context, attach
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from services.common.admission.priority import priority_metadata
from services.common.errors import ConfigurationError

_PROPAGATOR: Final = TraceContextTextMapPropagator()
_tracer = trace.get_tracer("dl4all")


def configure_tracing(service: str, enabled: bool) -> Callable[[], None]:
    """Export spans of this process, if enabled.

    Args:
        service: ``service.name`` of the spans.
        enabled: whether to export; OpenTelemetry's own settings name the receiver.

    Returns:
        A function to call at the end: it sends the last spans.

    Raises:
        ConfigurationError: the extra ``tracing`` is not installed.
    """
    if not enabled:
        return lambda: None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigurationError(
            "TRACING_NOT_INSTALLED", "DL4ALL_TRACING needs the extra `tracing` of the server's wheel (docs/install.md)."
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider.shutdown


def extract(metadata: Iterable[tuple[str, Any]] | None) -> Context | None:
    """Trace context of a call's metadata; None where there is none."""
    carrier = {key: value for key, value in metadata or () if key in _PROPAGATOR.fields and isinstance(value, str)}
    return _PROPAGATOR.extract(carrier) if carrier else None


def headers() -> dict[str, str]:
    """The current trace context as headers; empty outside a trace."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier


def trace_id() -> str:
    """Identifier of the current trace, 32 hex digits; empty outside a trace."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else ""


def metadata() -> tuple[tuple[str, str], ...]:
    """The current trace context and priority as metadata of a call. Passed by hand: asyncio interceptors cost a task a call."""
    return (*headers().items(), *priority_metadata())


class SpanScope(Enum):
    """How long a span is the current span."""

    BLOCK = "block"
    """While the block runs: for a plain call. The block must begin and end in one context."""
    TASK = "task"
    """Until the task ends: for a call over the wire, which has its own task. An asynchronous generator may be closed in another context."""
    NONE = "none"
    """Never: for a generator, which runs in the context of its caller."""


@contextmanager
def server_span(method: str, parent: Context | None, scope: SpanScope) -> Iterator[Span]:
    """Span of an RPC that is served here.

    Args:
        method: full method name.
        parent: the caller's context; None for the context of the running code.
        scope: how long it is the current span.
    """
    service, _, rpc = method.lstrip("/").partition("/")
    attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": rpc}
    span = _tracer.start_span(method.lstrip("/"), parent, SpanKind.SERVER, attributes)
    try:
        if scope is SpanScope.BLOCK:
            with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                yield span
            return
        if scope is SpanScope.TASK:
            attach(trace.set_span_in_context(span))
        yield span
    finally:
        span.end()


@contextmanager
def client_span(name: str) -> Iterator[None]:
    """Span around a call of another part."""
    with _tracer.start_as_current_span(name, kind=SpanKind.CLIENT):
        yield


def note_outcome(span: Span, code: str, request_id: str) -> None:
    """Put the outcome of an RPC on its span."""
    span.set_attribute("rpc.grpc.status", code)
    span.set_attribute("dl4all.request_id", request_id)
    if code != "OK":
        span.set_status(Status(StatusCode.ERROR, code))
