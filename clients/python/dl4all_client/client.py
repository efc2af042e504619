"""Clients of the diagnosis service: one for plain code, one for asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final

import grpc

from dl4all.diagnosis.v1 import diagnosis_pb2, diagnosis_pb2_grpc
from dl4all.imaging.v1 import imaging_pb2
from dl4all_client.channel import Tls, open_aio_channel, open_channel
from dl4all_client.errors import ServiceError

DEFAULT_TIMEOUT: Final = 60.0
SLIDE_CHUNK_BYTES: Final = 1024 * 1024
_KINDS: Final = {
    "auto": imaging_pb2.ImageKind.IMAGE_KIND_AUTO,
    "cell": imaging_pb2.ImageKind.IMAGE_KIND_CELL,
    "field": imaging_pb2.ImageKind.IMAGE_KIND_FIELD,
}


def diagnose_request(
    image: bytes,
    *,
    kind: str = "auto",
    release: str = "",
    request_id: str = "",
    specimen: str = "",
    microns_per_pixel: float = 0.0,
    explain: bool = False,
    neighbours: int = 0,
) -> diagnosis_pb2.DiagnoseRequest:
    """Build a request.

    Args:
        image: encoded image.
        kind: auto, cell or field.
        release: release id or system; empty for the default.
        request_id: identifier of the call; made up by the service if empty.
        specimen: the caller's pseudonym of the specimen.
        microns_per_pixel: 0 where unknown.
        explain: whether to return similarity maps, registered crops and the latent map.
        neighbours: neighbours per cell, 0 for the service's default.

    Raises:
        ValueError: kind is none of the three.
    """
    if kind not in _KINDS:
        raise ValueError(f"kind must be one of {', '.join(_KINDS)}, got {kind!r}")
    display = diagnosis_pb2.DisplayOptions(neighbours=neighbours, include_maps=explain, include_crops=explain, include_latent_map=explain)
    return diagnosis_pb2.DiagnoseRequest(
        request_id=request_id,
        image=image,
        kind=_KINDS[kind],
        microns_per_pixel=microns_per_pixel,
        specimen=specimen,
        release=release,
        display=display,
    )


def slide_start(
    *,
    path: str = "",
    upload_bytes: int = 0,
    release: str = "",
    request_id: str = "",
    specimen: str = "",
    microns_per_pixel: float = 0.0,
    explain: bool = False,
    explained_cells: int = 0,
) -> diagnosis_pb2.DiagnoseSlideStart:
    """Build the first message of a slide.

    Args:
        path: of the slide below the slide root of the service; or
        upload_bytes: size of the file that follows in chunks.
        release, request_id, specimen, microns_per_pixel: as for ``diagnose_request``.
        explain: whether the most suspicious cells come with similarity maps, registered crops and the latent map.
        explained_cells: how many of them are explained; 0 for the service's default.

    Raises:
        ValueError: not one of path and upload_bytes is given.
    """
    if bool(path) == bool(upload_bytes):
        raise ValueError("give either path or upload_bytes")
    source = imaging_pb2.SlideSource(path=path) if path else imaging_pb2.SlideSource(upload_bytes=upload_bytes)
    return diagnosis_pb2.DiagnoseSlideStart(
        request_id=request_id,
        source=source,
        microns_per_pixel=microns_per_pixel,
        specimen=specimen,
        release=release,
        display=diagnosis_pb2.DisplayOptions(include_maps=explain, include_crops=explain, include_latent_map=explain),
        explained_cells=explained_cells,
    )


def slide_requests(start: diagnosis_pb2.DiagnoseSlideStart, file: BinaryIO | None = None) -> Iterator[diagnosis_pb2.DiagnoseSlideRequest]:
    """The messages of a slide: its start, then the file in chunks of ``SLIDE_CHUNK_BYTES``, read as they are sent."""
    yield diagnosis_pb2.DiagnoseSlideRequest(start=start)
    while file is not None and (chunk := file.read(SLIDE_CHUNK_BYTES)):
        yield diagnosis_pb2.DiagnoseSlideRequest(chunk=chunk)


class DiagnosisClient:
    """Synchronous client.

    Args:
        address: ``host:port`` of the gateway, or ``dns:///name:port``: every address of the name takes its turn.
        timeout: seconds per call; streams and specimens have no limit of their own.
        tls: certificates; plaintext without.
    """

    def __init__(self, address: str, timeout: float = DEFAULT_TIMEOUT, tls: Tls | None = None) -> None:
        self._channel = open_channel(address, tls)
        self._stub = diagnosis_pb2_grpc.DiagnosisServiceStub(self._channel)
        self._timeout = timeout

    def __enter__(self) -> DiagnosisClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def diagnose(self, image: bytes, **options: Any) -> diagnosis_pb2.Diagnosis:
        """Diagnose one image; options as for ``diagnose_request``.

        Raises:
            ServiceError: the call was refused or failed.
        """
        try:
            return self._stub.Diagnose(diagnose_request(image, **options), timeout=self._timeout).diagnosis
        except grpc.RpcError as error:
            raise ServiceError.from_rpc(error) from error

    def diagnose_specimen(self, images: Iterable[bytes], **options: Any) -> diagnosis_pb2.SpecimenDiagnosis:
        """Diagnose the images of one specimen and return the aggregate.

        Raises:
            ServiceError: the call was refused or failed; a single bad image only counts as a failure.
        """
        requests = (
            diagnosis_pb2.DiagnoseSpecimenRequest(request=diagnose_request(image, request_id=str(number), **options))
            for number, image in enumerate(images)
        )
        try:
            answers = list(self._stub.DiagnoseSpecimen(requests))
        except grpc.RpcError as error:
            raise ServiceError.from_rpc(error) from error
        return answers[-1].specimen

    def diagnose_slide(self, slide: Path | str, *, seconds: float | None = None, **options: Any) -> Iterator[diagnosis_pb2.DiagnoseSlideResponse]:
        """Diagnose a slide; yields progress, cells and, last, the diagnosis.

        Args:
            slide: a file here, which is uploaded; or, as text, a path below the slide root of the service.
            seconds: for the whole slide; None for the service's own limit.
            options: as for ``slide_start``.

        Raises:
            ServiceError: the slide was refused, or the call failed.
            OSError: the file cannot be read.
        """
        with ExitStack() as stack:
            file = stack.enter_context(slide.open("rb")) if isinstance(slide, Path) else None
            start = slide_start(upload_bytes=slide.stat().st_size, **options) if isinstance(slide, Path) else slide_start(path=slide, **options)
            try:
                yield from self._stub.DiagnoseSlide(slide_requests(start, file), timeout=seconds)
            except grpc.RpcError as error:
                raise ServiceError.from_rpc(error) from error

    def list_systems(self) -> list[diagnosis_pb2.SystemRelease]:
        """List the releases that can be chosen.

        Raises:
            ServiceError: the call failed.
        """
        try:
            return list(self._stub.ListSystems(diagnosis_pb2.ListSystemsRequest(), timeout=self._timeout).releases)
        except grpc.RpcError as error:
            raise ServiceError.from_rpc(error) from error

    @staticmethod
    def finding_name(diagnosis: diagnosis_pb2.Diagnosis) -> str:
        """BLASTS_SUSPECTED, NO_BLASTS_SEEN or INDETERMINATE."""
        return finding_name(diagnosis.finding)


class AsyncDiagnosisClient:
    """Client for asyncio.

    Args:
        address: ``host:port`` of the gateway, or ``dns:///name:port``: every address of the name takes its turn.
        timeout: seconds per call; streams and specimens have no limit of their own.
        tls: certificates; plaintext without.
    """

    def __init__(self, address: str, timeout: float = DEFAULT_TIMEOUT, tls: Tls | None = None) -> None:
        self._channel = open_aio_channel(address, tls)
        self._stub = diagnosis_pb2_grpc.DiagnosisServiceStub(self._channel)
        self._timeout = timeout

    async def __aenter__(self) -> AsyncDiagnosisClient:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._channel.close()

    async def diagnose(self, image: bytes, **options: Any) -> diagnosis_pb2.Diagnosis:
        """Diagnose one image; options as for ``diagnose_request``.

        Raises:
            ServiceError: the call was refused or failed.
        """
        try:
            answer = await self._stub.Diagnose(diagnose_request(image, **options), timeout=self._timeout)
        except grpc.aio.AioRpcError as error:
            raise ServiceError.from_rpc(error) from error
        return answer.diagnosis

    async def diagnose_stream(
        self, requests: AsyncIterator[diagnosis_pb2.DiagnoseRequest]
    ) -> AsyncIterator[tuple[str, diagnosis_pb2.Diagnosis | ServiceError]]:
        """Diagnose many images over one stream; yields (request id, diagnosis or error) as they finish.

        Raises:
            ServiceError: the stream itself failed.
        """
        messages = (diagnosis_pb2.DiagnoseStreamRequest(request=request) async for request in requests)
        try:
            async for answer in self._stub.DiagnoseStream(messages):
                failed = answer.WhichOneof("result") == "error"
                yield answer.request_id, ServiceError.from_status(answer.error) if failed else answer.diagnosis
        except grpc.aio.AioRpcError as error:
            raise ServiceError.from_rpc(error) from error

    async def list_systems(self) -> list[diagnosis_pb2.SystemRelease]:
        """List the releases that can be chosen.

        Raises:
            ServiceError: the call failed.
        """
        try:
            answer = await self._stub.ListSystems(diagnosis_pb2.ListSystemsRequest(), timeout=self._timeout)
        except grpc.aio.AioRpcError as error:
            raise ServiceError.from_rpc(error) from error
        return list(answer.releases)


def finding_name(finding: diagnosis_pb2.Finding.ValueType) -> str:
    """Name of a finding without its prefix."""
    return diagnosis_pb2.Finding.Name(finding).removeprefix("FINDING_")
