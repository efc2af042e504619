"""Health on a port of its own: without TLS, and nothing else beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from deploy.tls.make_certificates import NAMES, write_all
from dl4all.patching.v1 import patching_pb2, patching_pb2_grpc
from services.common.channel import open_channel
from services.common.errors import ConfigurationError
from services.common.health import Needs
from services.common.server import Registration, Server
from services.common.settings import CommonSettings, ServiceSettings, TlsSettings

_Status = health_pb2.HealthCheckResponse
SERVICE = patching_pb2.DESCRIPTOR.services_by_name["PatchingService"]
FakePatching: Any = patching_pb2_grpc.PatchingServiceServicer


class Patching(FakePatching):
    """Serves nothing, and is ready as long as it is told so."""

    def __init__(self) -> None:
        self.is_ready = True

    async def ready(self) -> bool:
        return self.is_ready


@pytest.fixture
def tls(tmp_path: Path) -> TlsSettings:
    write_all(tmp_path, NAMES, days=1, wrong=False)
    return TlsSettings(ca=tmp_path / "ca.pem", certificate=tmp_path / "server.pem", key=tmp_path / "server.key", mutual=True)


@pytest.fixture
def servicer() -> Patching:
    return Patching()


@pytest.fixture
async def server(tls: TlsSettings, servicer: Patching) -> AsyncIterator[Server]:
    common = CommonSettings(drain_delay_seconds=0.0, drain_seconds=0.0, metrics=False)
    needs = Needs({"model": servicer.ready})
    registration = Registration(SERVICE, patching_pb2_grpc.add_PatchingServiceServicer_to_server, servicer, lambda: needs)
    running = Server([registration], common, ServiceSettings(health_port=0), tls)
    await running.start()
    yield running
    await running.stop()


async def _status(port: int, name: str, tls: TlsSettings | None = None) -> int:
    async with open_channel(f"localhost:{port}", tls or TlsSettings(), CommonSettings()) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        return int((await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)).status)


def _health_port(server: Server) -> int:
    assert server.health_port is not None
    return server.health_port.port


async def test_probes_without_a_certificate_learn_what_others_learn(server: Server, servicer: Patching, tls: TlsSettings) -> None:
    for name in ("", SERVICE.full_name, "live"):
        assert await _status(_health_port(server), name) == await _status(server.port, name, tls) == _Status.SERVING
    servicer.is_ready = False
    assert await _status(_health_port(server), "") == await _status(server.port, "", tls) == _Status.NOT_SERVING
    assert await _status(_health_port(server), "live") == _Status.SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _status(_health_port(server), "nothing")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_the_port_of_the_service_still_wants_a_certificate(server: Server) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _status(server.port, "live")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_nothing_but_health_is_there(server: Server) -> None:
    async with grpc.aio.insecure_channel(f"localhost:{_health_port(server)}") as channel:
        patching: Any = patching_pb2_grpc.PatchingServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(aiter(patching.LocateCells(patching_pb2.LocateCellsRequest(), timeout=10)))
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        reflection = cast(Any, reflection_pb2_grpc).ServerReflectionStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(aiter(reflection.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=10)))
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_large_probe_is_refused(server: Server) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _status(_health_port(server), "x" * 10_000)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_server_that_ends_says_so_until_it_has_ended() -> None:
    server = Server([], CommonSettings(drain_delay_seconds=4.0, drain_seconds=0.0, metrics=False), ServiceSettings(health_port=0))
    await server.start()
    port = _health_port(server)
    assert await _status(port, "live") == _Status.SERVING
    ending = asyncio.create_task(server.stop())
    await asyncio.sleep(0)
    assert await _status(port, "") == _Status.NOT_SERVING
    assert await _status(port, "live") == _Status.SERVING
    await ending
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _status(port, "live")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_port_that_is_taken_is_told(server: Server) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Server([], CommonSettings(), ServiceSettings(health_port=_health_port(server)))
    assert caught.value.reason == "PORT_TAKEN"


async def test_without_the_setting_there_is_no_such_port() -> None:
    assert Server([], CommonSettings(), ServiceSettings()).health_port is None
