"""Where the work is done: in this process (default) or at a server. Both give the same messages and the same errors."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from dl4all.classification.v1 import classification_pb2_grpc
from dl4all.diagnosis.v1 import diagnosis_pb2, diagnosis_pb2_grpc
from dl4all.patching.v1 import patching_pb2_grpc
from dl4all.preprocessing.v1 import preprocessing_pb2_grpc
from dl4all.retrieval.v1 import retrieval_pb2_grpc
from dl4all_client.channel import Tls, open_aio_channel
from dl4all_client.errors import ServiceError


@dataclass(frozen=True)
class Backend:
    """Asynchronous stubs of the services that the command line calls."""

    gateway: Any
    patching: Any
    preprocessing: Any
    classification: Any
    retrieval: Any

    async def systems(self) -> list[diagnosis_pb2.SystemRelease]:
        """The releases that can be chosen."""
        answer = await self.gateway.ListSystems(diagnosis_pb2.ListSystemsRequest(), timeout=30)
        return list(answer.releases)

    async def system(self, release: str) -> diagnosis_pb2.SystemRelease | None:
        """A release, by id; None where it is not listed, or where the gateway cannot be asked any more."""
        try:
            return next((s for s in await self.systems() if s.release == release), None)
        except grpc.aio.AioRpcError:
            return None

    async def default_release(self) -> diagnosis_pb2.SystemRelease:
        """The release that a request gets that names none."""
        return next(release for release in await self.systems() if release.default)


@asynccontextmanager
async def open_backend(address: str | None) -> AsyncIterator[Backend]:
    """Open a backend.

    Args:
        address: host:port of a server with all services, or None to run the services in this process. TLS is used where
            ``DL4ALL_TLS_CA`` is set.

    Raises:
        ServiceError: the services cannot be started here.
        OSError: a TLS file cannot be read.
    """
    if address is None:
        async with _embedded() as backend:
            yield backend
        return
    try:
        tls = Tls.from_environment(os.environ)
    except ValueError as error:
        raise ServiceError("FAILED_PRECONDITION", "TLS_INCOMPLETE", str(error)) from error
    async with open_aio_channel(address, tls) as channel:
        yield Backend(
            gateway=diagnosis_pb2_grpc.DiagnosisServiceStub(channel),
            patching=patching_pb2_grpc.PatchingServiceStub(channel),
            preprocessing=preprocessing_pb2_grpc.PreprocessingServiceStub(channel),
            classification=classification_pb2_grpc.ClassificationServiceStub(channel),
            retrieval=retrieval_pb2_grpc.RetrievalServiceStub(channel),
        )


@asynccontextmanager
async def _embedded() -> AsyncIterator[Backend]:
    from services.common.errors import DomainError
    from services.common.logs import configure_logs
    from services.common.settings import CommonSettings, TlsSettings
    from services.embedded import embedded_services

    configure_logs("ERROR")
    try:
        async with embedded_services(CommonSettings(), TlsSettings()) as services:
            yield Backend(**services.stubs)
    except DomainError as error:
        raise ServiceError(error.code, error.reason, error.message) from error
