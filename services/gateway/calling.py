"""Calls of the other services, and the caller's error where they fail."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import grpc
import structlog

from services.common import metrics
from services.common.status import error_of_rpc

_log = structlog.get_logger("dl4all")


async def call(dependency: str, called: Coroutine[Any, Any, Any], *, of_caller: bool = False) -> Any:
    """Await a call of another service.

    Args:
        dependency: name of the service.
        called: the call.
        of_caller: whether the call carries the caller's own image, slide or reference; a refusal of it passes through to the caller.

    Raises:
        DomainError: the service refused the call, or is down.
    """
    try:
        return await called
    except grpc.aio.AioRpcError as error:
        raise failed(error, dependency, of_caller=of_caller) from error


def failed(error: grpc.aio.AioRpcError, dependency: str, *, of_caller: bool = False) -> Exception:
    """The caller's error for a failure of another service; counted and logged. Arguments as for ``call``."""
    metrics.DEPENDENCY_ERRORS.labels(dependency, error.code().name).inc()
    _log.warning("dependency failed", dependency=dependency, code=error.code().name, details=error.details())
    return error_of_rpc(error, dependency, of_caller=of_caller)
