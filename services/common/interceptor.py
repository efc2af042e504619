"""Server interceptor that admits every RPC of a server and puts the guard around it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from functools import partial
from typing import Any, NoReturn

import grpc
from grpc_status import rpc_status

from services.common.admission.admission import Admission
from services.common.admission.answers import Answers
from services.common.admission.reading import Messages, Received, receiving
from services.common.errors import DomainError
from services.common.guard import CallFailedError, guarded, request_id_of
from services.common.status import status_of
from services.common.tracing import SpanScope

_HEALTH = "/grpc.health."
_PUSHBACK = (("grpc-retry-pushback-ms", "-1"),)
"""Tells the caller's channel not to retry: a service's own answer would be the same some milliseconds later, and retries of every hop would
multiply. Calls that no service answered are retried (``channel.py``)."""
EarlyCheck = Callable[[Any], None]
_Requests = AsyncIterator[Received]


class GuardInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Admits calls, reads their messages, logs, and answers errors as rich statuses.

    A call of one message is served as a stream of one: so it is admitted on its headers, before its message takes memory.

    Args:
        admission: what is admitted.
        longest_seconds: longest time for a stream.
        early: by full name of a method of one message, a check of a call on its headers; it raises DomainError.
    """

    def __init__(self, admission: Admission, longest_seconds: float, early: Mapping[str, EarlyCheck] | None = None) -> None:
        self._admission = admission
        self._early = early or {}
        self._longest_seconds = longest_seconds

    async def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Wrap the handler of one RPC."""
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None:
            return None
        answer = _Answer(handler.response_serializer)
        forms: dict[str, Any] = {"request_deserializer": receiving(handler.request_deserializer), "response_serializer": answer.serialized}
        if method.startswith(_HEALTH):
            if handler.response_streaming:
                return grpc.stream_stream_rpc_method_handler(_streamed(partial(self._watch, handler.unary_stream)), **forms)
            return grpc.stream_unary_rpc_method_handler(_answered(partial(self._probe, handler.unary_unary)), **forms)
        match handler.request_streaming, handler.response_streaming:
            case False, False:
                return grpc.stream_unary_rpc_method_handler(_answered(partial(self._one_to_one, method, handler.unary_unary, answer)), **forms)
            case True, False:
                return grpc.stream_unary_rpc_method_handler(_answered(partial(self._many_to_one, method, handler.stream_unary)), **forms)
            case False, True:
                return grpc.stream_stream_rpc_method_handler(_streamed(partial(self._one_to_many, method, handler.unary_stream)), **forms)
            case _:
                return grpc.stream_stream_rpc_method_handler(_streamed(partial(self._many_to_many, method, handler.stream_stream)), **forms)

    async def _probe(self, behavior: Callable[[Any, Any], Awaitable[Any]], requests: _Requests, context: Any) -> Any:
        with _typed():
            request = await self._admission.probe(requests, context)
        return await behavior(request, context)

    async def _watch(self, behavior: Callable[[Any, Any], AsyncGenerator[Any, None]], requests: _Requests, context: Any) -> AsyncGenerator[Any, None]:
        with _typed():
            request = await self._admission.probe(requests, context)
        async with aclosing(behavior(request, context)) as responses:
            async for response in responses:
                yield response

    async def _one_to_one(
        self, method: str, behavior: Callable[[Any, Any], Awaitable[Any]], answer: _Answer, requests: _Requests, context: Any
    ) -> Any:
        async with guarded(method, context=context, scope=SpanScope.TASK) as call:
            if (check := self._early.get(method)) is not None:
                check(context)
            async with self._admission.one(requests, context) as (request, answers):
                call.request_id = request_id_of(request)
                response = await behavior(request, context)
                answers.last(context)
                answer.answers = answers
                return response

    async def _many_to_one(self, method: str, behavior: Callable[[Any, Any], Awaitable[Any]], requests: _Requests, context: Any) -> Any:
        async with (
            guarded(method, context=context, scope=SpanScope.TASK),
            self._admission.many(requests, context) as (messages, stream),
            asyncio.timeout(self._longest_seconds),
        ):
            response = await behavior(messages, context)
            stream.last(context)
            return response

    async def _one_to_many(
        self, method: str, behavior: Callable[[Any, Any], AsyncGenerator[Any, None]], requests: _Requests, context: Any
    ) -> AsyncGenerator[Any, None]:
        async with guarded(method, context=context, scope=SpanScope.TASK) as call, self._admission.one(requests, context) as (request, answers):
            call.request_id = request_id_of(request)
            async with aclosing(behavior(request, context)) as responses:
                async for response in responses:
                    with answers.offered():
                        yield response

    async def _many_to_many(
        self, method: str, behavior: Callable[[Any, Any], AsyncGenerator[Any, None]], requests: _Requests, context: Any
    ) -> AsyncGenerator[Any, None]:
        async with (
            guarded(method, context=context, scope=SpanScope.TASK),
            self._admission.many(requests, context) as (messages, stream),
            asyncio.timeout(self._longest_seconds),
            aclosing(behavior(messages, context)) as responses,
        ):
            async for response in responses:
                with stream.offered():
                    yield response


class _Answer:
    """Serializes the answers of one call, and says how many bytes the last one has.

    Args:
        serialize: of the generated code.
    """

    def __init__(self, serialize: Callable[[Any], bytes]) -> None:
        self._serialize = serialize
        self.answers: Answers | None = None

    def serialized(self, message: Any) -> bytes:
        """The message as bytes."""
        data = self._serialize(message)
        if self.answers is not None:
            self.answers.sized(len(data))
        return data


@contextmanager
def _typed() -> Iterator[None]:
    try:
        yield
    except DomainError as error:
        raise CallFailedError(status_of(error)) from error


def _answered(serve: Callable[[_Requests, Any], Awaitable[Any]]) -> Callable[[object, Any], Awaitable[Any]]:
    async def call(_: object, context: Any) -> Any:
        try:
            return await serve(Messages(context), context)
        except CallFailedError as failed:
            await _abort(context, failed)

    return call


def _streamed(serve: Callable[[_Requests, Any], AsyncGenerator[Any, None]]) -> Callable[[object, Any], AsyncIterator[Any]]:
    async def call(_: object, context: Any) -> AsyncIterator[Any]:
        try:
            async with aclosing(serve(Messages(context), context)) as responses:
                async for response in responses:
                    yield response
        except CallFailedError as failed:
            await _abort(context, failed)

    return call


async def _abort(context: grpc.aio.ServicerContext[Any, Any], failed: CallFailedError) -> NoReturn:
    status = rpc_status.to_status(failed.status)
    context.set_trailing_metadata((*status.trailing_metadata, *_PUSHBACK))
    await context.abort(status.code, status.details)
