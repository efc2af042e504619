"""Calls of the other services: the time that is left, what their failures mean, and how long each stage took."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import structlog

from dl4all.classification.v1 import classification_pb2
from services.common import metrics
from services.common.status import error_of_rpc
from services.common.tracing import client_span

_log = structlog.get_logger("dl4all")


class Clock:
    """The time that a call has left.

    Args:
        seconds: from now.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds left, at least 1 ms, so that a call that starts late still ends as DEADLINE_EXCEEDED."""
        return max(0.001, self._end - time.monotonic())


@dataclass
class Effort:
    """What it took to judge an image or a slide.

    Attributes:
        engine: engine that ran the models; empty where no cell was judged.
        models: models that were run.
        milliseconds: time by stage, summed over batches.
    """

    engine: str = ""
    models: list[classification_pb2.ServedModel] = field(default_factory=list)
    milliseconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def note(self, stage: str, started: float) -> None:
        """Count a stage that began at ``started`` (``time.perf_counter``) and ends now."""
        seconds = time.perf_counter() - started
        metrics.STAGE_SECONDS.labels(stage).observe(seconds)
        self.milliseconds[stage] += 1000.0 * seconds

    def add(self, other: Effort) -> None:
        """Count what another image took as well."""
        self.engine = self.engine or other.engine
        known = {(m.name, m.version, m.sha256) for m in self.models}
        self.models += [m for m in other.models if (m.name, m.version, m.sha256) not in known]
        for stage, milliseconds in other.milliseconds.items():
            self.milliseconds[stage] += milliseconds

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """A stage in a span of its own."""
        started = time.perf_counter()
        try:
            with client_span(stage):
                yield
        finally:
            self.note(stage, started)


async def call(dependency: str, called: Coroutine[Any, Any, Any]) -> Any:
    """Await a call of another service.

    Raises:
        DomainError: what it refused, or that it is down.
    """
    try:
        return await called
    except grpc.aio.AioRpcError as error:
        raise failed(error, dependency) from error


def failed(error: grpc.aio.AioRpcError, dependency: str) -> Exception:
    """What a failure of another service means to the caller; counted and logged."""
    metrics.DEPENDENCY_ERRORS.labels(dependency, error.code().name).inc()
    _log.warning("dependency failed", dependency=dependency, code=error.code().name, details=error.details())
    return error_of_rpc(error, dependency)
