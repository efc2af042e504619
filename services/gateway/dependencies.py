"""The four services that the gateway composes, over channels: stubs, and whether they are ready."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dl4all.classification.v1 import classification_pb2_grpc
from dl4all.patching.v1 import patching_pb2_grpc
from dl4all.preprocessing.v1 import preprocessing_pb2_grpc
from dl4all.retrieval.v1 import retrieval_pb2_grpc
from services.common.channel import open_channel
from services.common.health import Needs, NeedsNow, Probe, release_name
from services.common.releases import ReleaseStore
from services.common.settings import CommonSettings, TlsSettings
from services.gateway.settings import GatewaySettings
from services.gateway.stubs import Stubs

_STUBS: Final[Mapping[str, Any]] = {
    "patching": patching_pb2_grpc.PatchingServiceStub,
    "preprocessing": preprocessing_pb2_grpc.PreprocessingServiceStub,
    "classification": classification_pb2_grpc.ClassificationServiceStub,
    "retrieval": retrieval_pb2_grpc.RetrievalServiceStub,
}


@asynccontextmanager
async def open_dependencies(
    settings: GatewaySettings, common: CommonSettings, tls: TlsSettings, releases: ReleaseStore
) -> AsyncIterator[tuple[Stubs, NeedsNow]]:
    """Open channels to the four services; they need not run yet.

    Raises:
        ConfigurationError: a TLS file cannot be read.
    """
    async with AsyncExitStack() as stack:
        channels = {}
        for name in _STUBS:
            channel = open_channel(getattr(settings, f"{name}_address"), tls, common)
            channels[name] = await stack.enter_async_context(channel)
        stubs = Stubs(**{name: stub(channels[name]) for name, stub in _STUBS.items()})
        yield stubs, partial(dependency_needs, channels, releases, common.health_timeout_seconds)


def dependency_needs(channels: Mapping[str, grpc.aio.Channel], releases: ReleaseStore, timeout: float) -> Needs:
    """Needs of the gateway: for each release the four services, if they can use it.

    Releases that were added since are taken in first.

    Args:
        channels: by service name.
        releases: the releases that the gateway offers; it is not ready without the default release.
        timeout: seconds that a dependency may take to answer.
    """
    releases.take_in()
    probes: dict[str, Probe] = {}
    wanted: dict[str, list[str]] = {release.id: [] for release in releases.releases}
    for name, channel in channels.items():
        stub = health_pb2_grpc.HealthStub(channel)
        for release in wanted:
            key = f"{name} {release_name(release)}"
            probes[key] = partial(_is_serving, stub, release_name(release), timeout)
            wanted[release].append(key)
    return Needs(probes, wanted, releases.index.default)


async def _is_serving(stub: Any, service: str, timeout: float) -> bool:
    try:
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=timeout)
    except grpc.aio.AioRpcError:
        return False
    return bool(answer is not None and answer.status == health_pb2.HealthCheckResponse.SERVING)
