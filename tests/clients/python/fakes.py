"""Stubs of the gateway's services that answer at once and note their requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import grpc

from dl4all.diagnosis.v1 import diagnosis_pb2, library_pb2
from dl4all.imaging.v1 import imaging_pb2
from dl4all.retrieval.v1 import library_pb2 as retrieval_library_pb2


class Refused(grpc.aio.AioRpcError):
    """A call that the service refused without details."""

    def __init__(self) -> None:
        super().__init__(grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.aio.Metadata(), grpc.aio.Metadata(), "too much")


class Stream:
    """Answers of a streaming call, which can be cancelled."""

    def __init__(self, answers: Iterator[Any]) -> None:
        self._answers, self.cancelled, self.finished = answers, False, False

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self._answers
            self.finished = True
        except OSError as error:  # gRPC ends a call whose requests fail, and does not say why
            raise Refused from error

    def cancel(self) -> None:
        self.cancelled = True


def streaming(method: Callable[..., Iterator[Any]]) -> Callable[..., Stream]:
    """A method that answers a stream, as gRPC has it: the call is made at once, its answers come as they are taken."""

    def call(self: FakeStub, *args: Any, **options: Any) -> Stream:
        self.streams.append(Stream(method(self, *args, **options)))
        return self.streams[-1]

    return call


class FakeStub:
    """Answers every RPC of both services, as the stubs for plain code do, or fails."""

    def __init__(self) -> None:
        self.fails = False
        self.requests: list[Any] = []
        self.timeouts: list[float | None] = []
        self.metadata: tuple[tuple[str, str], ...] = ()
        self.streams: list[Stream] = []

    def Diagnose(
        self, request: diagnosis_pb2.DiagnoseRequest, timeout: float, metadata: tuple[tuple[str, str], ...]
    ) -> diagnosis_pb2.DiagnoseResponse:
        self._note(request, timeout)
        self.metadata = metadata
        return diagnosis_pb2.DiagnoseResponse(diagnosis=_diagnosis(request.request_id))

    @streaming
    def DiagnoseStream(
        self, requests: Iterable[diagnosis_pb2.DiagnoseStreamRequest], timeout: float | None
    ) -> Iterator[diagnosis_pb2.DiagnoseStreamResponse]:
        self._note(None, timeout)
        for message in requests:
            yield _answer(message.request)

    @streaming
    def DiagnoseSpecimen(
        self, requests: Iterable[diagnosis_pb2.DiagnoseSpecimenRequest], timeout: float | None
    ) -> Iterator[diagnosis_pb2.DiagnoseSpecimenResponse]:
        self._note(None, timeout)
        for message in requests:
            self.requests.append(message.request)
            yield diagnosis_pb2.DiagnoseSpecimenResponse(image=_answer(message.request))
        yield diagnosis_pb2.DiagnoseSpecimenResponse(specimen=diagnosis_pb2.SpecimenDiagnosis(images=len(self.requests) - 1))

    @streaming
    def DiagnoseSlide(
        self, requests: Iterable[diagnosis_pb2.DiagnoseSlideRequest], timeout: float | None
    ) -> Iterator[diagnosis_pb2.DiagnoseSlideResponse]:
        for request in requests:
            self._note(request, timeout)
            progress = diagnosis_pb2.DiagnoseSlideProgress(bytes_received=len(request.chunk.data))
            yield diagnosis_pb2.DiagnoseSlideResponse(progress=progress)

    def LocateCells(self, request: diagnosis_pb2.LocateCellsRequest, timeout: float) -> diagnosis_pb2.LocateCellsResponse:
        self._note(request, timeout)
        return diagnosis_pb2.LocateCellsResponse(cells=[imaging_pb2.Cell(cell_id=0)])

    def MeasureFocus(self, request: diagnosis_pb2.MeasureFocusRequest, timeout: float) -> diagnosis_pb2.MeasureFocusResponse:
        self._note(request, timeout)
        return diagnosis_pb2.MeasureFocusResponse(score=6.5)

    def EnhanceCell(self, request: diagnosis_pb2.EnhanceCellRequest, timeout: float) -> diagnosis_pb2.EnhanceCellResponse:
        self._note(request, timeout)
        return diagnosis_pb2.EnhanceCellResponse(release="dss-1")

    def ListReleases(self, request: diagnosis_pb2.ListReleasesRequest, timeout: float) -> diagnosis_pb2.ListReleasesResponse:
        self._note(request, timeout)
        return diagnosis_pb2.ListReleasesResponse(releases=[diagnosis_pb2.Release(release_id="a-1")])

    def GetLibrary(self, request: library_pb2.GetLibraryRequest, timeout: float) -> library_pb2.GetLibraryResponse:
        self._note(request, timeout)
        return library_pb2.GetLibraryResponse(release="a-1", library=retrieval_library_pb2.Library(patients=4))

    def AddReferences(self, requests: Iterable[library_pb2.AddReferencesRequest], timeout: float | None) -> library_pb2.AddReferencesResponse:
        self._note(None, timeout)
        try:
            self.requests = list(requests)
        except OSError as error:
            raise Refused from error
        return library_pb2.AddReferencesResponse(addition_ids=range(len(self.requests) - 1))

    def _note(self, request: Any, timeout: float | None) -> None:
        if self.fails:
            raise Refused
        self.requests.append(request)
        self.timeouts.append(timeout)


class AsyncStream:
    """The same stream as asyncio has it."""

    def __init__(self, method: Callable[..., Stream], requests: AsyncIterator[Any], options: dict[str, Any]) -> None:
        self._method, self._requests, self._options = method, requests, options
        self.stream: Stream | None = None

    async def __aiter__(self) -> AsyncIterator[Any]:
        self.stream = self._method(await _collected(self._requests), **self._options)
        for answer in self.stream:
            yield answer

    def cancel(self) -> None:
        if self.stream is not None:
            self.stream.cancel()


class AsyncFakeStub:
    """The same stub as asyncio has it."""

    def __init__(self, stub: FakeStub) -> None:
        for name in ("Diagnose", "LocateCells", "MeasureFocus", "EnhanceCell", "ListReleases", "GetLibrary", "AddReferences"):
            setattr(self, name, _awaited(getattr(stub, name)))
        for name in ("DiagnoseStream", "DiagnoseSpecimen", "DiagnoseSlide"):
            setattr(self, name, _iterated(getattr(stub, name)))


def _awaited(method: Callable[..., Any]) -> Callable[..., Any]:
    async def call(request: Any, **options: Any) -> Any:
        return method(await _collected(request) if hasattr(request, "__aiter__") else request, **options)

    return call


def _iterated(method: Callable[..., Stream]) -> Callable[..., AsyncStream]:
    return lambda requests, **options: AsyncStream(method, requests, options)


async def _collected(requests: AsyncIterator[Any]) -> list[Any]:
    """All messages; as gRPC for asyncio has it, the call is cancelled where making one fails."""
    try:
        return [message async for message in requests]
    except OSError:
        raise asyncio.CancelledError from None


def _diagnosis(request_id: str) -> diagnosis_pb2.Diagnosis:
    return diagnosis_pb2.Diagnosis(request_id=request_id, finding=diagnosis_pb2.FINDING_INDETERMINATE)


def _answer(request: diagnosis_pb2.DiagnoseRequest) -> diagnosis_pb2.DiagnoseStreamResponse:
    answer = diagnosis_pb2.DiagnoseStreamResponse(request_id=request.request_id)
    if request.image:
        answer.diagnosis.CopyFrom(_diagnosis(request.request_id))
    else:
        answer.error.code, answer.error.message = grpc.StatusCode.INVALID_ARGUMENT.value[0], "empty"
    return answer
