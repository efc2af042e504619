"""Where the work is done: in this process (default) or at a gateway. Both give the same messages and the same errors."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all_client import AsyncDiagnosisClient, ServiceError, Tls


@asynccontextmanager
async def open_client(address: str | None, threads: int | None = None) -> AsyncIterator[AsyncDiagnosisClient]:
    """Open a client.

    Args:
        address: host:port of a gateway, or None to run the services in this process. TLS is used where ``DL4ALL_TLS_CA`` is set.
        threads: for images, where the services run in this process; None for their setting ``DL4ALL_WORKERS``.

    Raises:
        ServiceError: the services cannot be started here, or the address is none.
        OSError: a TLS file cannot be read.
    """
    if address is None:
        async with _embedded(threads) as client:
            yield client
        return
    try:
        tls = Tls.from_environment(os.environ)
    except ValueError as error:
        raise ServiceError("FAILED_PRECONDITION", "TLS_INCOMPLETE", str(error)) from error
    try:
        opened = AsyncDiagnosisClient(address, tls=tls)
    except ValueError as error:
        raise ServiceError("INVALID_ARGUMENT", "ADDRESS_INVALID", str(error)) from error
    async with opened as client:
        yield client


async def find_release(client: AsyncDiagnosisClient, release_id: str) -> diagnosis_pb2.Release | None:
    """A release, by id; None where it is not listed, or where the gateway does not answer any more."""
    try:
        return next((r for r in await client.list_releases() if r.release_id == release_id), None)
    except ServiceError:
        return None


@asynccontextmanager
async def _embedded(threads: int | None) -> AsyncIterator[AsyncDiagnosisClient]:
    from services.common.errors import DomainError
    from services.common.logs import configure_logs
    from services.common.settings import CommonSettings, TlsSettings
    from services.embedded import embedded_services

    configure_logs("ERROR")
    try:
        settings = CommonSettings() if threads is None else CommonSettings(workers=threads)
        async with embedded_services(settings, TlsSettings()) as services:
            yield AsyncDiagnosisClient.over(services.stubs["gateway"], services.stubs["library"])
    except DomainError as error:
        raise ServiceError(error.code, error.reason, error.message) from error
