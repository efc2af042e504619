"""A gateway for tests, in this process: it answers, refuses, or goes down, image by image."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from clients.batch.gateways import Gateway
from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all_client import ServiceError
from tests.clients.batch.making import diagnosis

Behaviour = Callable[[diagnosis_pb2.DiagnoseRequest, int], diagnosis_pb2.Diagnosis | ServiceError | None]
"""What becomes of an image, by request and number of times that it came: its diagnosis, an error of its own, or None: the gateway goes down."""


def answer(_: diagnosis_pb2.DiagnoseRequest, __: int) -> diagnosis_pb2.Diagnosis:
    return diagnosis()


class FakeGateway:
    """Counts what it computes.

    Args:
        behaviour: what becomes of each image.
        seconds: that each takes.
    """

    def __init__(self, behaviour: Behaviour = answer, seconds: float = 0.0) -> None:
        self.behaviour = behaviour
        self.seconds = seconds
        self.came: Counter[bytes] = Counter()
        self.under_way = 0
        self.most_under_way = 0
        self.together: list[set[bytes]] = []
        self.open_images: set[bytes] = set()
        self.requests: list[diagnosis_pb2.DiagnoseRequest] = []
        self._streams: set[asyncio.Queue[Any]] = set()

    def gateway(self) -> Gateway:
        async def is_ready(_: str) -> bool:
            return True

        return Gateway(self, is_ready)  # type: ignore[arg-type]

    @asynccontextmanager
    async def opened(self, _: str | None, __: int | None) -> AsyncIterator[Gateway]:
        yield self.gateway()

    async def list_releases(self) -> list[diagnosis_pb2.Release]:
        return [diagnosis_pb2.Release(release_id="release-1", system="baseline", is_current=True, is_default=True)]

    async def diagnose_stream(self, requests: AsyncIterator[diagnosis_pb2.DiagnoseRequest]) -> AsyncIterator[Any]:
        done: asyncio.Queue[Any] = asyncio.Queue()
        self._streams.add(done)
        tasks: set[asyncio.Task[None]] = set()

        async def read() -> None:
            async for request in requests:
                tasks.add(asyncio.create_task(self._one(request, done)))
            await asyncio.gather(*tasks)
            await done.put(None)

        reading = asyncio.create_task(read())
        try:
            while (found := await done.get()) is not None:
                if isinstance(found, ServiceError):
                    raise found
                yield found
        finally:
            self._streams.discard(done)
            reading.cancel()
            for task in tasks:
                task.cancel()

    async def _one(self, request: diagnosis_pb2.DiagnoseRequest, done: asyncio.Queue[Any]) -> None:
        self.requests.append(request)
        self.came[request.image] += 1
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        self.open_images.add(request.image)
        self.together.append(set(self.open_images))
        try:
            await asyncio.sleep(self.seconds)
            found = self.behaviour(request, self.came[request.image])
        finally:
            self.under_way -= 1
            self.open_images.discard(request.image)
        if found is None:
            for stream in self._streams:
                stream.put_nowait(ServiceError("UNAVAILABLE", "UNAVAILABLE", "Socket closed"))
        else:
            done.put_nowait((request.request_id, found))
