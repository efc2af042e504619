"""Calls of the other services, and the caller's error where they fail."""

from __future__ import annotations

from collections.abc import Collection, Coroutine
from typing import Any, Final

import grpc
import structlog

from services.common import metrics
from services.common.status import error_of_rpc

REFUSES_IMAGES: Final = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.RESOURCE_EXHAUSTED)
"""Statuses by which a service refuses the image or slide that the caller sent."""
REFUSES_ADDITIONS: Final = (grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.RESOURCE_EXHAUSTED)
"""Statuses by which retrieval refuses the confirmed cells that the caller sent."""
_log = structlog.get_logger("dl4all")


async def call(dependency: str, called: Coroutine[Any, Any, Any], *, of_caller: Collection[grpc.StatusCode] = ()) -> Any:
    """Await a call of another service.

    Args:
        dependency: name of the service.
        called: the call.
        of_caller: statuses by which the service refuses what the caller sent; the caller hears of those.

    Raises:
        DomainError: the service refused the call, or is down.
    """
    try:
        return await called
    except grpc.aio.AioRpcError as error:
        raise failed(error, dependency, of_caller=of_caller) from error


def failed(error: grpc.aio.AioRpcError, dependency: str, *, of_caller: Collection[grpc.StatusCode] = ()) -> Exception:
    """The caller's error for a failure of another service; counted and logged. Arguments as for ``call``."""
    metrics.DEPENDENCY_ERRORS.labels(dependency, error.code().name).inc()
    _log.warning("dependency failed", dependency=dependency, code=error.code().name, details=error.details())
    return error_of_rpc(error, dependency, of_caller=of_caller)
