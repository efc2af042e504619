"""Health that tells the truth: what a service needs is asked anew at every check.

Names that can be asked for, besides the services' own: ``""`` (the whole server), ``live`` (the process runs; for
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
    """What a service needs to be ready.

    Attributes:
        dependencies: probes by name of the part that is asked; all of them are shown in the metrics.
        releases: for every release that the service holds, the names of the dependencies without which it cannot be used.
        default_release: the release whose needs are the needs of the service itself; None for a service that uses none.
        models: names of dependencies that are models.
    """

    dependencies: Mapping[str, Probe] = field(default_factory=dict)
    releases: Mapping[str, Sequence[str]] = field(default_factory=dict)
    default_release: str | None = None
    models: Sequence[str] = ()


NeedsNow = Callable[[], Needs]
"""What a service needs as things stand: releases are taken in while it runs, so it is told anew in every round of questions."""


def composed(parts: Mapping[str, NeedsNow]) -> NeedsNow:
    """What a service needs that composes others in its own process: all that they need, named ``<part> <dependency>``.

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
    """Knows whether services are ready, by asking what they need; checks that come together share one round of questions.

    Args:
        services: full names of the gRPC services of this server.
        needs: what each of them needs, by full name.
        timeout: seconds that a probe may take.
    """

    def __init__(self, services: Sequence[str], needs: Mapping[str, NeedsNow], timeout: float) -> None:
        self._services = tuple(services)
        self._needs = needs
        self._timeout = timeout
        self._round: asyncio.Task[dict[str, int]] | None = None
        self.draining = False

    async def statuses(self) -> dict[str, int]:
        """Status by health name, asked now."""
        if self._round is None or self._round.done():
            self._round = asyncio.create_task(self._ask())
        return dict(await asyncio.shield(self._round))

    def drain(self) -> None:
        """Say NOT_SERVING from now on."""
        self.draining = True

    async def _ask(self) -> dict[str, int]:
        found: dict[str, int] = {LIVE: _Status.SERVING}
        for service in self._services:
            needs = self._needs_of(service)
            if needs is None:
                metrics.READY.labels(service).set(False)
                self._note(found, service, False)
                continue
            ready = await self._probe_all(needs.dependencies)
            for name, is_ready in ready.items():
                metrics.DEPENDENCY_READY.labels(service, name).set(is_ready)
            for release, wanted in needs.releases.items():
                usable = all(ready[name] for name in wanted)
                metrics.RELEASE_READY.labels(service, release).set(usable)
                self._note(found, release_name(release), usable)
            for model in needs.models:
                self._note(found, model_name(model), ready[model])
            wanted = needs.releases.get(needs.default_release, ()) if needs.default_release is not None else tuple(ready)
            serving = not self.draining and all(ready[name] for name in wanted)
            metrics.READY.labels(service).set(serving)
            self._note(found, service, serving)
        self._note(found, "", all(found[service] == _Status.SERVING for service in self._services))
        return found

    def _needs_of(self, service: str) -> Needs | None:
        """What a service needs; None where it cannot even say that, which is logged and must not end the looking."""
        try:
            return self._needs.get(service, Needs)()
        except Exception:
            _log.exception("readiness unknown", service=service)
            return None

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
        except Exception:  # whatever keeps a part from saying that it is ready: it is not
            return False


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """``grpc.health.v1`` over a ``Readiness``.

    Args:
        readiness: who is asked.
        interval: seconds between two looks for watchers and metrics.
    """

    def __init__(self, readiness: Readiness, interval: float) -> None:
        self._readiness = readiness
        self._interval = interval
        self._seen: dict[str, int] = {}
        self._changed = asyncio.Condition()
        self._closed = False
        self._watching: asyncio.Task[None] | None = None

    async def Check(self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        """Ask now; nobody else is asked whether this process lives."""
        if request.service == LIVE:
            return _Status(status=_Status.SERVING)
        status = (await self._readiness.statuses()).get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"Nothing is called {request.service!r} here.")
        return _Status(status=status)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        """Say what is, then what changes."""
        while not self._closed:
            said = self._status(request.service)
            yield _Status(status=said)
            async with self._changed:
                await self._changed.wait_for(partial(self._has_news, request.service, said))

    async def start(self) -> None:
        """Look once, then go on looking."""
        await self.look()
        self._watching = asyncio.create_task(self._look_on())

    async def look(self) -> None:
        """Look now and tell watchers what changed."""
        seen = await self._readiness.statuses()
        async with self._changed:
            self._seen = seen
            self._changed.notify_all()

    async def stop(self) -> None:
        """Look no more and let watchers go."""
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
            except Exception:  # whatever it is: a service that looks no more says for ever what it said last
                _log.exception("looking failed")
