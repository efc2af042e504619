"""Server interceptor that puts the guard around every RPC of a server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final, NoReturn

import grpc
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from services.common.errors import InvalidRequestError
from services.common.guard import Admission, CallFailedError, guarded, request_id_of
from services.common.tracing import SpanScope

_UNGUARDED = ("/grpc.health.", "/grpc.reflection.")
_UNREADABLE: Final = object()
_PUSHBACK = (("grpc-retry-pushback-ms", "-1"),)
"""Tells the caller's channel not to retry: a service's own answer would be the same some milliseconds later, and retries of every hop would
multiply. Calls that no service answered are retried (``channel.py``)."""


class GuardInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Bounds concurrency, logs, and answers errors as rich statuses.

    Args:
        max_concurrent_calls: calls that are accepted at once; more get RESOURCE_EXHAUSTED at once.
    """

    def __init__(self, max_concurrent_calls: int) -> None:
        self.admission = Admission(max_concurrent_calls)

    async def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Wrap the handler of one RPC."""
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None or method.startswith(_UNGUARDED):
            return handler
        forms = {"request_deserializer": _readable(handler.request_deserializer), "response_serializer": handler.response_serializer}
        if handler.response_streaming:
            wrap = grpc.stream_stream_rpc_method_handler if handler.request_streaming else grpc.unary_stream_rpc_method_handler
            behavior = handler.stream_stream if handler.request_streaming else handler.unary_stream
            return wrap(self._streaming(method, behavior, _checked_stream if handler.request_streaming else _checked), **forms)
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(self._unary(method, handler.stream_unary, _checked_stream), **forms)
        return grpc.unary_unary_rpc_method_handler(self._unary(method, handler.unary_unary, _checked), **forms)

    def _unary(
        self, method: str, behavior: Callable[[Any, Any], Awaitable[Any]], checked: Callable[[Any], Any]
    ) -> Callable[[Any, Any], Awaitable[Any]]:
        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            try:
                async with guarded(method, request_id_of(request), self.admission, context, scope=SpanScope.TASK):
                    return await behavior(checked(request), context)
            except CallFailedError as failed:
                await _abort(context, failed)

        return call

    def _streaming(
        self, method: str, behavior: Callable[[Any, Any], AsyncGenerator[Any, None]], checked: Callable[[Any], Any]
    ) -> Callable[[Any, Any], AsyncIterator[Any]]:
        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            try:
                async with (
                    guarded(method, request_id_of(request), self.admission, context, scope=SpanScope.TASK),
                    aclosing(behavior(checked(request), context)) as responses,
                ):
                    async for response in responses:
                        yield response
            except CallFailedError as failed:
                await _abort(context, failed)

        return call


def _readable(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """A deserializer that gives ``_UNREADABLE`` where protobuf cannot read a message; gRPC would answer UNKNOWN with the name of a class."""
    if deserialize is None:
        return None

    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return _UNREADABLE

    return read


def _checked(request: Any) -> Any:
    if request is _UNREADABLE:
        raise InvalidRequestError("MESSAGE_UNREADABLE", "Protobuf cannot read the message; send one of the contract.")
    return request


async def _checked_stream(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _checked(request)


async def _abort(context: grpc.aio.ServicerContext[Any, Any], failed: CallFailedError) -> NoReturn:
    status = rpc_status.to_status(failed.status)
    context.set_trailing_metadata((*status.trailing_metadata, *_PUSHBACK))
    await context.abort(status.code, status.details)
