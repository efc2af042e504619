"""A stub whose servicer is in the same process: same signature, same errors, same deadlines, no wire."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from services.common.guard import CallFailedError, guarded, request_id_of
from services.common.status import STATUS_METADATA_KEY, grpc_code
from services.common.tracing import SpanScope


class LocalContext:
    """The part of a servicer context that servicers use: the time that is left, and the metadata.

    Args:
        timeout: seconds, or None for no limit.
        metadata: invocation metadata.
    """

    def __init__(self, timeout: float | None, metadata: tuple[tuple[str, str], ...]) -> None:
        self._end = None if timeout is None else time.monotonic() + timeout
        self._metadata = metadata

    def time_remaining(self) -> float | None:
        """Seconds until the deadline, not below 0; None without deadline."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def peer(self) -> str:
        """There is no other end."""
        return ""

    def auth_context(self) -> dict[str, list[bytes]]:
        """No transport has checked anything."""
        return {}

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """Metadata of the call."""
        return self._metadata


class LocalStub:
    """Calls a servicer's methods as a generated asynchronous stub would.

    Args:
        servicer: object with one coroutine (or asynchronous generator) method per RPC.
        service: descriptor of the service that it implements.
    """

    def __init__(self, servicer: object, service: ServiceDescriptor) -> None:
        for method in service.methods:
            behavior = getattr(servicer, method.name)
            setattr(self, method.name, _streaming(method, behavior) if method.server_streaming else _unary(method, behavior))


def _name(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def _unary(method: MethodDescriptor, behavior: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    async def call(request: Any, *, timeout: float | None = None, metadata: tuple[tuple[str, str], ...] = ()) -> Any:
        context = LocalContext(timeout, metadata)
        try:
            async with guarded(_name(method), request_id_of(request), context=context), asyncio.timeout(timeout):
                return await behavior(request, context)
        except CallFailedError as failed:
            raise _rpc_error(failed) from failed

    return call


def _streaming(method: MethodDescriptor, behavior: Callable[[Any, Any], AsyncGenerator[Any, None]]) -> Callable[..., AsyncIterator[Any]]:
    async def call(request: Any, *, timeout: float | None = None, metadata: tuple[tuple[str, str], ...] = ()) -> AsyncIterator[Any]:
        context = LocalContext(timeout, metadata)
        try:
            async with (
                guarded(_name(method), request_id_of(request), context=context, scope=SpanScope.NONE),
                aclosing(behavior(request, context)) as responses,
            ):
                while True:
                    async with asyncio.timeout(context.time_remaining()):
                        try:
                            response = await anext(responses)
                        except StopAsyncIteration:
                            return
                    yield response
        except CallFailedError as failed:
            raise _rpc_error(failed) from failed

    return call


def _rpc_error(failed: CallFailedError) -> grpc.aio.AioRpcError:
    trailing = grpc.aio.Metadata((STATUS_METADATA_KEY, failed.status.SerializeToString()))
    return grpc.aio.AioRpcError(grpc_code(failed.status), grpc.aio.Metadata(), trailing, failed.status.message)
