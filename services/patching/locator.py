"""The locators of the releases: which network finds the cells for a release, and how a location is driven with it."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from dl4all.patching.v1 import patching_pb2
from services.common.engines.base import InferenceEngine
from services.common.engines.needs import needs_of_models
from services.common.health import Needs
from services.common.memory_budget import Share
from services.common.releases import Model, Release, ReleaseStore
from services.common.workers import Workers
from services.patching.locator_maps import MAPS

Bytes = NDArray[np.uint8]
Float = NDArray[np.float32]
Result = TypeVar("Result")


@dataclass(frozen=True)
class _Step:
    """What a location wants the network to see next, or its end."""

    seen: Bytes | None
    result: object


class Locator:
    """Finds cells for one release, with its network or, where there is none, by the stain alone.

    Args:
        model: the network; None where there is none.
        engine: that runs it.
        workers: threads for all else.
    """

    def __init__(self, model: Model | None, engine: InferenceEngine, workers: Workers) -> None:
        self._model = model
        self._engine = engine
        self._workers = workers

    @property
    def is_learned(self) -> bool:
        """Whether a network finds the cells."""
        return self._model is not None

    def message(self) -> patching_pb2.LocatorModel | None:
        """The served file, for provenance; None where there is no network."""
        if self._model is None:
            return None
        return patching_pb2.LocatorModel(
            name=self._model.model, version=self._model.version, sha256=self._engine.served_sha256(self._model), engine=self._engine.name
        )

    async def drive(self, stage: str, location: Generator[Bytes, Float, Result], share: Share, seconds: float | None) -> Result:
        """Run a location to its end: its own work in worker threads, the network by the engine.

        Args:
            stage: name of the work in the metrics.
            location: what is run.
            share: memory that the work uses.
            seconds: until the caller's deadline; None for no limit.

        Raises:
            DomainError: the image is refused, or the engine fails.
        """
        advance = share.used_by(_advance)
        loop = asyncio.get_running_loop()
        end = None if seconds is None else loop.time() + seconds
        step = await self._workers.run(stage, advance, location, None)
        while step.seen is not None:
            maps = await self._maps(step.seen, None if end is None else end - loop.time())
            step = await self._workers.run(stage, advance, location, maps)
        return cast(Result, step.result)

    def drive_here(self, location: Generator[Bytes, Float, Result], loop: asyncio.AbstractEventLoop, end: float | None) -> Result:
        """Run a location in this thread, one of long work; the engine runs in the loop.

        Args:
            location: what is run.
            loop: of the engine.
            end: the caller's deadline by the clock of the loop; None for no limit.

        Raises:
            DomainError: the image is refused, or the engine fails.
        """
        step = _advance(location, None)
        while step.seen is not None:
            left = None if end is None else end - loop.time()
            step = _advance(location, asyncio.run_coroutine_threadsafe(self._maps(step.seen, left), loop).result())
        return cast(Result, step.result)

    async def _maps(self, seen: Bytes, seconds: float | None) -> Float:
        assert self._model is not None
        answer = await self._engine.infer(self._model, seen[None], [MAPS], seconds)
        return np.asarray(answer[MAPS][0], np.float32)


class Locators:
    """The locators of all releases.

    Args:
        releases: that are held.
        engine: that runs the networks.
        workers: threads for all else.
    """

    def __init__(self, releases: ReleaseStore, engine: InferenceEngine, workers: Workers) -> None:
        self._releases = releases
        self._engine = engine
        self._workers = workers

    def of(self, release_id: str) -> Locator:
        """The locator of a release; for an empty id that of releases which name none.

        Raises:
            FailedPreconditionError: this service does not hold the release.
        """
        return Locator(self._releases.locator(release_id), self._engine, self._workers)

    def needs(self) -> Needs:
        """The networks that the releases need, by name."""
        return needs_of_models(self._releases, self._engine, self._models_of)

    def _models_of(self, release: Release) -> list[Model]:
        locator = self._releases.locator(release.id)
        return [] if locator is None else [locator]


def _advance(location: Generator[Bytes, Float, object], maps: Float | None) -> _Step:
    try:
        return _Step(next(location) if maps is None else location.send(maps), None)
    except StopIteration as stop:
        return _Step(None, stop.value)
