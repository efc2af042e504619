"""Health of services: every check probes anew what a service needs.

Health names, besides those of the services: ``""`` (the whole server), ``live`` (the process runs; for
liveness probes, which must not depend on others), ``release/<id>`` and ``model/<name>/<version>``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.common import metrics

LIVE: Final = "live"
MAX_WATCHERS: Final = 64
_log = structlog.get_logger("dl4all")
Probe = Callable[[], Awaitable[bool]]
_Status = health_pb2.HealthCheckResponse


def release_name(release_id: str) -> str:
    """The health name of a release."""
    return f"release/{release_id}"


def model_name(model: str) -> str:
    """The health name of a model."""
    return f"model/{model}"


@dataclass(frozen=True)
class Needs:
    """Dependencies that a service needs to be ready.

    Attributes:
        dependencies: probes by name of the dependency; the metrics show all of them.
        releases: for every release that the service holds, the names of the dependencies that it needs.
        default_release: the release whose needs are those of the service itself; None for a service that uses no release.
        models: names of dependencies that are models.
    """

    dependencies: Mapping[str, Probe] = field(default_factory=dict)
    releases: Mapping[str, Sequence[str]] = field(default_factory=dict)
    default_release: str | None = None
    models: Sequence[str] = ()


NeedsNow = Callable[[], Needs]
"""Returns what a service needs now; called in every round of probes, because releases are taken in while the service runs."""


def composed(parts: Mapping[str, NeedsNow]) -> NeedsNow:
    """Needs of a service that composes others in its own process: all of their needs, named ``<part> <dependency>``.

    Args:
        parts: what each of them needs, by its name. A part that holds no releases is needed for every release.
    """

    def needs() -> Needs:
        now = {name: part() for name, part in parts.items()}
        dependencies = {_of_part(name, d): probe for name, part in now.items() for d, probe in part.dependencies.items()}
        releases: dict[str, list[str]] = {release: [] for part in now.values() for release in part.releases}
        for name, part in now.items():
            for release, wanted in releases.items():
                if part.releases and release not in part.releases:
                    missing = _of_part(name, release_name(release))
                    dependencies[missing] = _never
                    wanted.append(missing)
                else:
                    wanted += [_of_part(name, d) for d in (part.releases[release] if part.releases else part.dependencies)]
        default = next((part.default_release for part in now.values() if part.default_release is not None), None)
        return Needs(dependencies, releases, default)

    return needs


def _of_part(part: str, dependency: str) -> str:
    return f"{part} {dependency}"


async def _never() -> bool:
    return False


class Readiness:
    """Says whether services are ready by probing what they need; checks at the same time share one round of probes.

    Args:
        services: full names of the gRPC services of this server.
        needs: what each of them needs, by full name. Services that share one callable share its probes.
        timeout: seconds that a probe may take.
        accepts: whether the server still accepts calls.
    """

    def __init__(self, services: Sequence[str], needs: Mapping[str, NeedsNow], timeout: float, accepts: Callable[[], bool] = lambda: True) -> None:
        self._services = tuple(services)
        self._accepts = accepts
        self._needs = needs
        self._timeout = timeout
        self._round: asyncio.Task[dict[str, int]] | None = None
        self.draining = False

    async def statuses(self) -> dict[str, int]:
        """Status by health name, probed now."""
        if self._round is None or self._round.done():
            self._round = asyncio.create_task(self._ask())
        return dict(await asyncio.shield(self._round))

    def drain(self) -> None:
        """Say NOT_SERVING from now on."""
        self.draining = True

    async def _ask(self) -> dict[str, int]:
        found: dict[str, int] = {LIVE: _Status.SERVING}
        probed: dict[NeedsNow, tuple[Needs, dict[str, bool]] | None] = {}
        for service in self._services:
            told = self._needs.get(service, Needs)
            if told not in probed:
                probed[told] = await self._probe_needs(service, told)
            outcome = probed[told]
            if outcome is None:
                metrics.READY.labels(service).set(False)
                self._note(found, service, False)
                continue
            needs, ready = outcome
            for name, is_ready in ready.items():
                metrics.DEPENDENCY_READY.labels(service, name).set(is_ready)
            for release, wanted in needs.releases.items():
                usable = all(ready[name] for name in wanted)
                metrics.RELEASE_READY.labels(service, release).set(usable)
                self._note(found, release_name(release), usable)
            for model in needs.models:
                self._note(found, model_name(model), ready[model])
            wanted = needs.releases.get(needs.default_release, ()) if needs.default_release is not None else tuple(ready)
            serving = not self.draining and self._accepts() and all(ready[name] for name in wanted)
            metrics.READY.labels(service).set(serving)
            self._note(found, service, serving)
        self._note(found, "", all(found[service] == _Status.SERVING for service in self._services))
        return found

    async def _probe_needs(self, service: str, told: NeedsNow) -> tuple[Needs, dict[str, bool]] | None:
        """Needs of a service, and which are ready; None where it cannot tell them, which is logged and does not end the rounds."""
        try:
            needs = told()
        except Exception:
            _log.exception("readiness unknown", service=service)
            return None
        return needs, await self._probe_all(needs.dependencies)

    def _note(self, found: dict[str, int], name: str, ready: bool) -> None:
        good = ready and not self.draining and found.get(name) != _Status.NOT_SERVING
        found[name] = _Status.SERVING if good else _Status.NOT_SERVING

    async def _probe_all(self, probes: Mapping[str, Probe]) -> dict[str, bool]:
        answers = await asyncio.gather(*(self._probe(probe) for probe in probes.values()))
        return dict(zip(probes, answers, strict=True))

    async def _probe(self, probe: Probe) -> bool:
        try:
            async with asyncio.timeout(self._timeout):
                return await probe()
        except Exception:  # a part that cannot say that it is ready is not ready
            return False


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """``grpc.health.v1`` over a ``Readiness``.

    Args:
        readiness: of the services.
        interval: seconds between two rounds of probes for watchers and metrics.
    """

    def __init__(self, readiness: Readiness, interval: float) -> None:
        self._readiness = readiness
        self._interval = interval
        self._seen: dict[str, int] = {}
        self._changed = asyncio.Condition()
        self._closed = False
        self._watchers = 0
        self._watching: asyncio.Task[None] | None = None

    async def Check(self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        """Probe now; the check ``live`` probes nothing."""
        if request.service == LIVE:
            return _Status(status=_Status.SERVING)
        status = (await self._readiness.statuses()).get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"There is no service {request.service!r} here.")
        return _Status(status=status)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        """Send the status now, then each change; no more than ``MAX_WATCHERS`` may watch at once."""
        if self._watchers >= MAX_WATCHERS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "As many watch this server as may; ask with Check.")
        self._watchers += 1
        try:
            while not self._closed:
                said = self._status(request.service)
                yield _Status(status=said)
                async with self._changed:
                    await self._changed.wait_for(partial(self._has_news, request.service, said))
        finally:
            self._watchers -= 1

    async def start(self) -> None:
        """Probe once, then at every interval."""
        await self.look()
        self._watching = asyncio.create_task(self._look_on())

    async def look(self) -> None:
        """Probe now and tell watchers of changes."""
        seen = await self._readiness.statuses()
        async with self._changed:
            self._seen = seen
            self._changed.notify_all()

    async def stop(self) -> None:
        """Stop probing and end the watchers."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching

    def _has_news(self, name: str, said: int) -> bool:
        return self._closed or self._status(name) != said

    def _status(self, name: str) -> int:
        return self._seen.get(name, _Status.SERVICE_UNKNOWN)

    async def _look_on(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            try:
                await self.look()
            except Exception:  # any error: without further rounds the last status would stay for ever
                _log.exception("looking failed")
