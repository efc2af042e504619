"""Clients of the diagnosis service: one for plain code, one for asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Any, Final

import grpc

from dl4all.diagnosis.v1 import diagnosis_pb2, diagnosis_pb2_grpc
from dl4all.imaging.v1 import imaging_pb2
from dl4all_client.channel import Tls, open_aio_channel, open_channel
from dl4all_client.errors import ServiceError

DEFAULT_TIMEOUT: Final = 60.0
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
