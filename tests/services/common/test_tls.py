"""TLS files that are replaced while servers and clients run."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

from deploy.tls.make_certificates import NAMES, write_all
from services.common import tls as module
from services.common.channel import open_channel
from services.common.errors import ConfigurationError
from services.common.server import Server
from services.common.settings import CommonSettings, ServiceSettings, TlsSettings
from services.common.tls import Pems, Renewed, TlsFiles

COMMON = CommonSettings(drain_delay_seconds=0.0, drain_seconds=0.0, metrics=False)


@pytest.fixture(autouse=True)
def _look_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.0)


@pytest.fixture
def used(tmp_path: Path) -> Path:
    """The folder that all parts read, with the certificates of one authority."""
    write_all(tmp_path / "first", NAMES, 1, wrong=False)
    write_all(tmp_path / "second", NAMES, 1, wrong=False)
    return shutil.copytree(tmp_path / "first", tmp_path / "used")


def settings(folder: Path, pair: str = "server") -> TlsSettings:
    return TlsSettings(ca=folder / "ca.pem", certificate=folder / f"{pair}.pem", key=folder / f"{pair}.key", mutual=pair == "server")


def replace(used: Path, *names: str) -> None:
    """Put files of the second authority in the place of those of the first."""
    for name in names:
        shutil.copy(used.parent / "second" / name, used / name)


def trust_both(used: Path) -> None:
    (used / "ca.pem").write_bytes(b"".join((used.parent / folder / "ca.pem").read_bytes() for folder in ("first", "second")))


def presented(port: int, folder: Path) -> int:
    """Serial number of the certificate that a server presents; it wants one of ours, too."""
    import socket

    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.load_cert_chain(folder / "client.pem", folder / "client.key")
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain, context.wrap_socket(plain, server_hostname="localhost") as connection:
        found = connection.getpeercert(binary_form=True)
    assert found is not None
    return x509.load_der_x509_certificate(found).serial_number


def serial(path: Path) -> int:
    return x509.load_pem_x509_certificate(path.read_bytes()).serial_number


async def live(channel: grpc.aio.Channel) -> bool:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service="live"), timeout=10)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


@pytest.fixture
async def server(used: Path) -> AsyncIterator[Server]:
    running = Server([], COMMON, ServiceSettings(), settings(used))
    await running.start()
    yield running
    await running.stop()


async def test_an_authority_is_replaced_step_by_step_and_no_call_fails(server: Server, used: Path) -> None:
    async def calls() -> None:
        while not done.is_set():
            assert await live(channel)
            async with open_channel(f"localhost:{server.port}", settings(used, "client"), COMMON) as fresh:
                assert await live(fresh)
            counted.append(1)
            await asyncio.sleep(0)

    async def some_calls() -> None:
        enough = len(counted) + 3
        while len(counted) < enough and not calling.done():
            await asyncio.sleep(0.01)

    done, counted = asyncio.Event(), list[int]()
    async with open_channel(f"localhost:{server.port}", settings(used, "client"), COMMON) as channel:
        calling = asyncio.create_task(calls())
        await some_calls()
        assert await asyncio.to_thread(presented, server.port, used) == serial(used.parent / "first" / "server.pem")
        trust_both(used)
        await some_calls()
        replace(used, "server.key", "server.pem", "client.key", "client.pem")
        await some_calls()
        replace(used, "ca.pem")
        await some_calls()
        done.set()
        await calling
        assert await asyncio.to_thread(presented, server.port, used) == serial(used.parent / "second" / "server.pem")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async with open_channel(f"localhost:{server.port}", settings(used.parent / "first", "client"), COMMON) as old:
            await live(old)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("broken", ["a key without its certificate", "no PEM", "a file that is missing"])
async def test_what_cannot_be_used_is_passed_over_until_it_is_whole(server: Server, used: Path, broken: str) -> None:
    trust_both(used)
    async with open_channel(f"localhost:{server.port}", settings(used, "client"), COMMON) as channel:
        assert await live(channel)
        if broken == "no PEM":
            (used / "server.pem").write_text("half of a certificate", encoding="utf-8")
        elif broken == "a file that is missing":
            (used / "server.pem").unlink()
        else:
            replace(used, "server.key", "client.key")
        for _ in range(3):
            async with open_channel(f"localhost:{server.port}", settings(used.parent / "first", "client"), COMMON) as other:
                assert await live(other)
            assert await live(channel)
        replace(used, "ca.pem", "server.key", "server.pem", "client.key", "client.pem")
        assert await live(channel)
    assert await asyncio.to_thread(presented, server.port, used) == serial(used.parent / "second" / "server.pem")


def test_files_are_taken_in_once(used: Path) -> None:
    files = TlsFiles(settings(used))
    assert not files.look()
    replace(used, "ca.pem", "server.key", "server.pem")
    assert [files.look(), files.look()] == [True, False]
    assert files.pems == Pems.of(settings(used.parent / "second"))


def test_files_are_looked_at_now_and_then(used: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 1000.0)
    files = TlsFiles(settings(used))
    replace(used, "ca.pem", "server.key", "server.pem")
    assert not files.look()


def test_what_is_made_is_made_anew_and_the_old_one_ended(used: Path) -> None:
    made: list[grpc.ChannelCredentials | None] = []
    ended: list[int] = []

    def make(credentials: grpc.ChannelCredentials | None) -> int:
        made.append(credentials)
        return len(made)

    renewed = Renewed(settings(used, "client"), make, ended.append)
    assert (renewed.now(), renewed.held, ended) == (1, 1, [])
    replace(used, "ca.pem", "client.key", "client.pem")
    assert (renewed.now(), renewed.now(), renewed.held, ended) == (2, 2, 2, [1])
    assert None not in made
    assert Renewed(TlsSettings(), make, ended.append).now() == 3
    assert made[-1] is None


def test_a_key_with_a_passphrase_is_refused(used: Path) -> None:
    key = serialization.load_pem_private_key((used / "server.key").read_bytes(), None)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret"))
    (used / "server.key").write_bytes(key.private_bytes(*form))
    with pytest.raises(ConfigurationError) as caught:
        TlsFiles(settings(used))
    assert caught.value.reason == "TLS_FILE_UNREADABLE"


def test_what_cannot_be_used_is_said_once(used: Path) -> None:
    files = TlsFiles(settings(used))
    (used / "server.pem").unlink()
    with capture_logs() as logs:
        assert [files.look() for _ in range(3)] == [False] * 3
    assert [line["event"] for line in logs] == ["new TLS files cannot be used"]


@pytest.mark.parametrize("pair", ["server", "client"])
def test_files_that_do_not_fit_are_refused_at_the_start(used: Path, pair: str) -> None:
    replace(used, f"{pair}.key")
    with pytest.raises(ConfigurationError, match="fit") as caught:
        TlsFiles(settings(used, pair))
    assert caught.value.reason == "TLS_FILE_UNREADABLE"
