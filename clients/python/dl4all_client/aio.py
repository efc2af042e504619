"""The client for asyncio."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Generic, Self, Unpack, cast

import grpc

from dl4all.diagnosis.v1 import diagnosis_pb2, diagnosis_pb2_grpc, library_pb2, library_pb2_grpc
from dl4all_client.addresses import proxy_note
from dl4all_client.channel import Tls, open_aio_channel
from dl4all_client.errors import ServiceError
from dl4all_client.requests import (
    DEFAULT_TIMEOUT,
    Answer,
    DiagnoseOptions,
    ImageOptions,
    Item,
    Kind,
    OnImage,
    Reference,
    SlideOptions,
    aggregate,
    diagnose_request,
    enhance_request,
    locate_request,
    priority_metadata,
    read_answer,
    read_specimen,
    reference_request,
    references_start,
    slide_requests,
    slide_start_of,
    specimen_request,
    stream_request,
)

_END: Final = object()


class AsyncDiagnosisClient:
    """Calls a gateway. Every method raises ServiceError where the call is refused or fails.

    Args:
        address: ``host:port`` of the gateway, or ``dns:///name:port``: round robin over all addresses of the name.
        timeout: seconds for a call about one image; streams, specimens and slides have no limit of their own here.
        tls: certificates; plaintext without.

    Raises:
        ValueError: the address is none; the message says what to write.
    """

    def __init__(self, address: str, timeout: float = DEFAULT_TIMEOUT, tls: Tls | None = None) -> None:
        self._channel: grpc.aio.Channel | None = open_aio_channel(address, tls)
        self._diagnosis: Any = diagnosis_pb2_grpc.DiagnosisServiceStub(self._channel)
        self._library: Any = library_pb2_grpc.LibraryServiceStub(self._channel)
        self._timeout = timeout
        self._note = proxy_note(address, os.environ)

    @classmethod
    def over(cls, diagnosis: Any, library: Any, timeout: float = DEFAULT_TIMEOUT) -> Self:
        """A client over asynchronous stubs, such as those of services in this process. Closing it leaves them as they are.

        Args:
            diagnosis: stub of ``DiagnosisService``.
            library: stub of ``LibraryService``.
            timeout: as for the class.
        """
        client = cls.__new__(cls)
        client._channel, client._diagnosis, client._library, client._timeout, client._note = None, diagnosis, library, timeout, ""
        return client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            await self._channel.close()

    async def diagnose(self, image: bytes, **options: Unpack[DiagnoseOptions]) -> diagnosis_pb2.Diagnosis:
        """See ``DiagnosisClient.diagnose``."""
        with _errors(self._note):
            request = diagnose_request(image, **options)
            called = self._diagnosis.Diagnose(request, timeout=self._timeout, metadata=priority_metadata(request))
            answer: diagnosis_pb2.DiagnoseResponse = await called
        return answer.diagnosis

    async def diagnose_stream(
        self, requests: AsyncIterable[diagnosis_pb2.DiagnoseRequest] | Iterable[diagnosis_pb2.DiagnoseRequest], *, timeout: float | None = None
    ) -> AsyncGenerator[Answer, None]:
        """See ``DiagnosisClient.diagnose_stream``."""
        sent = _Sent(stream_request(request) async for request in _each(requests))
        async with _streaming(self._diagnosis.DiagnoseStream(sent, timeout=timeout), self._note, sent) as answers:
            async for answer in answers:
                yield read_answer(answer)

    async def diagnose_specimen(
        self,
        images: AsyncIterable[bytes] | Iterable[bytes],
        *,
        on_image: OnImage | None = None,
        timeout: float | None = None,
        **options: Unpack[ImageOptions],
    ) -> diagnosis_pb2.SpecimenDiagnosis:
        """See ``DiagnosisClient.diagnose_specimen``."""
        numbers, specimen = count(), None
        sent = _Sent(specimen_request(next(numbers), image, options) async for image in _each(images))
        async with _streaming(self._diagnosis.DiagnoseSpecimen(sent, timeout=timeout), self._note, sent) as answers:
            async for answer in answers:
                specimen = read_specimen(answer, on_image)
        return aggregate(specimen)

    async def diagnose_slide(
        self, slide: Path | str, *, on_server: bool = False, timeout: float | None = None, **options: Unpack[SlideOptions]
    ) -> AsyncGenerator[diagnosis_pb2.DiagnoseSlideResponse, None]:
        """See ``DiagnosisClient.diagnose_slide``."""
        with ExitStack() as stack:
            file = None if on_server else stack.enter_context(Path(slide).open("rb"))
            sent = _Sent(_each(slide_requests(slide_start_of(slide, on_server, options), file)))
            async with _streaming(self._diagnosis.DiagnoseSlide(sent, timeout=timeout), self._note, sent) as parts:
                async for part in parts:
                    yield part

    async def locate_cells(self, image: bytes, *, kind: Kind = "auto", microns_per_pixel: float = 0.0) -> diagnosis_pb2.LocateCellsResponse:
        """See ``DiagnosisClient.locate_cells``."""
        with _errors(self._note):
            answer: diagnosis_pb2.LocateCellsResponse = await self._diagnosis.LocateCells(
                locate_request(image, kind, microns_per_pixel), timeout=self._timeout
            )
        return answer

    async def measure_focus(self, image: bytes) -> float:
        """See ``DiagnosisClient.measure_focus``."""
        with _errors(self._note):
            answer = await self._diagnosis.MeasureFocus(diagnosis_pb2.MeasureFocusRequest(image=image), timeout=self._timeout)
        return float(answer.score)

    async def enhance_cell(
        self, image: bytes, *, release: str = "", microns_per_pixel: float = 0.0, include_crop: bool = False
    ) -> diagnosis_pb2.EnhanceCellResponse:
        """See ``DiagnosisClient.enhance_cell``."""
        request = enhance_request(image, release, microns_per_pixel, include_crop=include_crop)
        with _errors(self._note):
            answer: diagnosis_pb2.EnhanceCellResponse = await self._diagnosis.EnhanceCell(request, timeout=self._timeout)
        return answer

    async def list_releases(self) -> list[diagnosis_pb2.Release]:
        """See ``DiagnosisClient.list_releases``."""
        with _errors(self._note):
            answer = await self._diagnosis.ListReleases(diagnosis_pb2.ListReleasesRequest(), timeout=self._timeout)
        return list(answer.releases)

    async def get_library(self, release: str = "") -> library_pb2.GetLibraryResponse:
        """See ``DiagnosisClient.get_library``."""
        with _errors(self._note):
            answer: library_pb2.GetLibraryResponse = await self._library.GetLibrary(
                library_pb2.GetLibraryRequest(release=release), timeout=self._timeout
            )
        return answer

    async def add_references(
        self,
        references: AsyncIterable[Reference] | Iterable[Reference],
        *,
        source: str,
        confirmed_by: str,
        idempotency_key: str,
        release: str = "",
        timeout: float | None = None,
    ) -> library_pb2.AddReferencesResponse:
        """See ``DiagnosisClient.add_references``."""
        start = references_start(source=source, confirmed_by=confirmed_by, idempotency_key=idempotency_key, release=release)
        sent = _Sent(_after(start, (reference_request(reference) async for reference in _each(references))))
        with _errors(self._note, sent):
            answer: library_pb2.AddReferencesResponse = await self._library.AddReferences(sent, timeout=timeout)
        return answer


async def _each(items: AsyncIterable[Item] | Iterable[Item]) -> AsyncIterator[Item]:
    """Items as they are made; those of a plain iterator are made in a thread, because making one may read a file."""
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
        return
    made = iter(items)
    while (made_item := await asyncio.to_thread(next, made, _END)) is not _END:
        yield cast(Item, made_item)


async def _after(first: Item, items: AsyncIterator[Item]) -> AsyncIterator[Item]:
    yield first
    async for item in items:
        yield item


class _Sent(Generic[Item]):
    """Messages of a stream, as ``requests.Sent`` has them for plain code."""

    def __init__(self, messages: AsyncIterator[Item]) -> None:
        self._messages = messages
        self.error: Exception | None = None

    def __aiter__(self) -> _Sent[Item]:
        return self

    async def __anext__(self) -> Item:
        try:
            return await anext(self._messages)
        except StopAsyncIteration:
            raise
        except Exception as error:
            self.error = error
            raise


@contextmanager
def _errors(note: str, sent: _Sent[Any] | None = None) -> Iterator[None]:
    """Raise ServiceError for a failed call, or the exception that ended what was sent; gRPC then cancels the call."""
    try:
        yield
    except (grpc.aio.AioRpcError, asyncio.CancelledError) as error:
        task = asyncio.current_task()
        if sent is not None and sent.error is not None and not (task is not None and task.cancelling()):
            raise sent.error from None
        if isinstance(error, grpc.aio.AioRpcError):
            raise ServiceError.from_rpc(error, note) from error
        raise


@asynccontextmanager
async def _streaming(call: Any, note: str, sent: _Sent[Any]) -> AsyncIterator[Any]:
    """The answers of a call; the call is cancelled where the caller takes no more of them."""
    with _errors(note, sent):
        try:
            yield call
        finally:
            if hasattr(call, "cancel"):
                call.cancel()
            else:  # of services in this process: a generator
                await call.aclose()
