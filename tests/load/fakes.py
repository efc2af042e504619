"""A gateway in this process whose answers a test writes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import grpc

from dl4all.diagnosis.v1 import diagnosis_pb2, diagnosis_pb2_grpc
from tests.load.calls import Caller
from tests.load.targets import Target

Handler = Callable[[diagnosis_pb2.DiagnoseRequest, Any], Coroutine[Any, Any, diagnosis_pb2.DiagnoseResponse]]


class Gateway(diagnosis_pb2_grpc.DiagnosisServiceServicer):
    """Answers as its handler does, and counts how many calls it is in at once."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.inside = 0
        self.most = 0

    async def Diagnose(self, request: diagnosis_pb2.DiagnoseRequest, context: Any) -> diagnosis_pb2.DiagnoseResponse:  # noqa: N802
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            return await self._handler(request, context)
        finally:
            self.inside -= 1


@asynccontextmanager
async def serving_target(handler: Handler) -> AsyncIterator[Target]:
    """A gateway that answers as the handler does."""
    async with _server(Gateway(handler)) as target:  # type: ignore[abstract]
        yield target


@asynccontextmanager
async def serving(handler: Handler, timeout: float = 5.0) -> AsyncIterator[tuple[Caller, Gateway]]:
    """A gateway, and a caller of it whose calls have a deadline of so many seconds."""
    gateway = Gateway(handler)  # type: ignore[abstract]
    async with _server(gateway) as target, Caller(target, [b"one", b"two"], timeout) as caller:
        caller.start()
        yield caller, gateway


@asynccontextmanager
async def _server(gateway: Gateway) -> AsyncIterator[Target]:
    server = grpc.aio.server()
    diagnosis_pb2_grpc.add_DiagnosisServiceServicer_to_server(gateway, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield Target("address", f"127.0.0.1:{port}")
    finally:
        await server.stop(None)


def answer(cells: int) -> diagnosis_pb2.DiagnoseResponse:
    """An answer with so many cells."""
    return diagnosis_pb2.DiagnoseResponse(diagnosis=diagnosis_pb2.Diagnosis(counts=diagnosis_pb2.CellCounts(total=cells)))
