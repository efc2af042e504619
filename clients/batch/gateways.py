"""The gateway that scores a batch: a remote one, or the services in this process."""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from clients.batch.errors import BatchError
from clients.common.opening import open_client
from dl4all_client import AsyncDiagnosisClient, Tls
from dl4all_client.channel import open_aio_channel
from dl4all_client.requests import Priority

_HEALTH_SECONDS: Final = 5.0
_MOST_HERE: Final = 16.0
"""More images at once in one process only wait for each other."""


@dataclass(frozen=True)
class Gateway:
    """A gateway.

    Attributes:
        client: calls it.
        is_ready: whether it can use a release now, by its health.
        priority: of the images. Services that serve nobody else have no interactive work to keep room for.
        most: images that it can make use of at once.
    """

    client: AsyncDiagnosisClient
    is_ready: Callable[[str], Awaitable[bool]]
    priority: Priority = "batch"
    most: float = math.inf


@asynccontextmanager
async def open_gateway(address: str | None, threads: int | None = None) -> AsyncIterator[Gateway]:
    """Open a gateway; it need not be ready yet.

    Args:
        address: host:port, or None to run the services in this process.
        threads: see ``open_client``.

    Raises:
        ServiceError: the services cannot be started here, or the address is none.
        OSError: a TLS file cannot be read.
    """
    async with open_client(address, threads) as client:
        if address is None:
            yield Gateway(client, _always, "interactive", _MOST_HERE)
            return
        async with open_aio_channel(address, Tls.from_environment(os.environ)) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)

            async def is_ready(release: str) -> bool:
                try:
                    answer = await stub.Check(health_pb2.HealthCheckRequest(service=f"release/{release}"), timeout=_HEALTH_SECONDS)
                except grpc.aio.AioRpcError:
                    return False
                return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

            yield Gateway(client, is_ready)


async def resolve_releases(gateway: Gateway, names: set[str]) -> dict[str, str]:
    """Release ids by the names that a batch uses.

    Args:
        gateway: that scores the batch.
        names: release ids or systems; an empty name is the default release.

    Raises:
        BatchError: the gateway does not have one.
        ServiceError: the gateway does not answer.
    """
    releases = await gateway.client.list_releases()
    found = {"": next((r.release_id for r in releases if r.is_default), "")}
    found |= {r.system: r.release_id for r in releases if r.is_current}
    found |= {r.release_id: r.release_id for r in releases}
    if missing := sorted(name for name in names if not found.get(name)):
        raise BatchError(f"The gateway has no release {', '.join(missing) or '(default)'}; it has {', '.join(r.release_id for r in releases)}.")
    return {name: found[name] for name in names}


async def _always(_: str) -> bool:
    return True
