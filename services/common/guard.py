"""The guard around every call: a span, metrics, one log line, errors as rich statuses."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import grpc
import structlog
from google.rpc import status_pb2

from services.common import metrics
from services.common.admission.priority import enter_priority
from services.common.errors import DeadlineError, DomainError, InternalError
from services.common.status import status_of
from services.common.tracing import SpanScope, extract, note_outcome, server_span

MAX_REQUEST_ID: Final = 128
_SAME_MOMENT_SECONDS: Final = 0.25
"""A caller cancels at its deadline, which passes earlier than ours by the time that the request took to arrive."""
_log = structlog.get_logger("dl4all")


class CallFailedError(Exception):
    """A call ended with a rich status."""

    def __init__(self, status: status_pb2.Status) -> None:
        super().__init__(status.message)
        self.status = status


@dataclass
class GuardedCall:
    """A call under way.

    Attributes:
        request_id: the caller's identifier, for the log and for internal errors; set when the request has been read.
    """

    request_id: str = ""
    _made_up: str = ""

    @property
    def loggable_id(self) -> str:
        """The caller's identifier if it is short and printable, else one that is made up once, so that log and answer can be matched."""
        said = self.request_id
        if 0 < len(said) <= MAX_REQUEST_ID and said.isascii() and said.isprintable():
            return said
        self._made_up = self._made_up or uuid.uuid4().hex
        return self._made_up


class ServedContext(Protocol):
    """The part of a servicer context that the guard reads, remote or local."""

    def time_remaining(self) -> float | None:
        """Seconds until the deadline."""

    def invocation_metadata(self) -> Any:
        """Metadata of the call."""


@asynccontextmanager
async def guarded(
    method: str, request_id: str = "", context: ServedContext | None = None, *, scope: SpanScope = SpanScope.BLOCK
) -> AsyncIterator[GuardedCall]:
    """Run a call: trace, count and log it, give it its priority, and turn every exception into ``CallFailedError``.

    Args:
        method: full method name.
        request_id: the caller's identifier, where it is known already.
        context: of the call; it tells a passed deadline from a cancellation and carries the caller's trace and priority.
        scope: see ``tracing.SpanScope``.

    Raises:
        CallFailedError: with the rich status for the caller.
    """
    started = time.perf_counter()
    call = GuardedCall(request_id)
    service, _, rpc = method.lstrip("/").partition("/")
    parent = None
    if context is not None:
        parent = extract(context.invocation_metadata())
        enter_priority(context.invocation_metadata())
    code = "OK"
    with server_span(method, parent, scope) as span, metrics.IN_PROGRESS.labels(service, rpc).track_inprogress():
        try:
            yield call
        except InternalError as error:
            code = error.code
            request_id = call.loggable_id
            _log.error("call failed", method=method, request_id=request_id, cause=error.message, inner=_inner(error))
            raise CallFailedError(status_of(_internal_error(request_id))) from error
        except DomainError as error:
            code = error.code
            raise CallFailedError(status_of(error)) from error
        except (TimeoutError, asyncio.TimeoutError) as error:
            code = "DEADLINE_EXCEEDED"
            raise CallFailedError(status_of(DeadlineError("DEADLINE_EXCEEDED", "The caller's deadline has passed."))) from error
        except (asyncio.CancelledError, grpc.aio.AbortError, GeneratorExit):
            code = "DEADLINE_EXCEEDED" if _is_over(context) else "CANCELLED"
            raise
        except Exception as error:
            code = "INTERNAL"
            request_id = call.loggable_id
            _log.exception("call failed", method=method, request_id=request_id)
            raise CallFailedError(status_of(_internal_error(request_id))) from error
        finally:
            seconds = time.perf_counter() - started
            metrics.REQUESTS.labels(service, rpc, code).inc()
            metrics.REQUEST_SECONDS.labels(service, rpc).observe(seconds)
            request_id = call.loggable_id
            note_outcome(span, code, request_id)
            _log.info("call", method=method, request_id=request_id, code=code, milliseconds=round(1000 * seconds, 1))


def _inner(error: InternalError) -> str:
    """The answer of another service, for the log."""
    cause = error.__cause__
    return f"{cause.code().name}: {cause.details()}" if isinstance(cause, grpc.aio.AioRpcError) else ""


def _is_over(context: ServedContext | None) -> bool:
    left = None if context is None else context.time_remaining()
    return left is not None and left <= _SAME_MOMENT_SECONDS


def _internal_error(request_id: str) -> InternalError:
    return InternalError("INTERNAL", f"Internal error; the log names it under request id {request_id}.")


def request_id_of(request: Any) -> str:
    """The request id of a request, or of the request inside it; empty if there is none."""
    inner = getattr(request, "request", request)
    return str(getattr(inner, "request_id", ""))
