"""Tests of channels: which calls are retried, and how often."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog

from dl4all_client import Tls
from services.common.channel import open_channel
from services.common.errors import ConfigurationError
from services.common.settings import CommonSettings, TlsSettings


class Refusing:
    """Answers the first calls with a status, and all later ones with success."""

    def __init__(self, code: grpc.StatusCode, times: int, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        self.code, self.times, self.metadata = code, times, metadata
        self.calls = 0

    async def answer(self, request: bytes, context: Any) -> bytes:
        self.calls += 1
        if self.calls <= self.times:
            context.set_trailing_metadata(self.metadata)
            await context.abort(self.code, "refused")
        return request


@asynccontextmanager
async def calling(refusing: Refusing) -> AsyncIterator[Any]:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a", {"b": grpc.unary_unary_rpc_method_handler(refusing.answer)}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with open_channel(f"127.0.0.1:{port}", TlsSettings(), CommonSettings()) as channel:
            yield channel.unary_unary("/a/b")
    finally:
        await server.stop(0)


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED])
async def test_an_unanswered_call_is_retried_three_times(code: grpc.StatusCode) -> None:
    refusing = Refusing(code, 3)
    async with calling(refusing) as call:
        assert await call(b"x", timeout=20) == b"x"
    assert refusing.calls == 4
    refusing = Refusing(code, 4)
    async with calling(refusing) as call:
        with pytest.raises(grpc.aio.AioRpcError):
            await call(b"x", timeout=20)
    assert refusing.calls == 4


async def test_an_image_is_kept_for_a_retry() -> None:
    refusing, image = Refusing(grpc.StatusCode.UNAVAILABLE, 1), bytes(12 * 1024 * 1024)
    async with calling(refusing) as call:
        assert await call(image, timeout=20) == image
    assert refusing.calls == 2


@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.FAILED_PRECONDITION])
async def test_other_statuses_are_not_retried(code: grpc.StatusCode) -> None:
    refusing = Refusing(code, 9)
    async with calling(refusing) as call:
        with pytest.raises(grpc.aio.AioRpcError):
            await call(b"x", timeout=20)
    assert refusing.calls == 1


async def test_a_service_that_pushes_back_is_not_called_again() -> None:
    refusing = Refusing(grpc.StatusCode.UNAVAILABLE, 9, (("grpc-retry-pushback-ms", "-1"),))
    async with calling(refusing) as call:
        with pytest.raises(grpc.aio.AioRpcError):
            await call(b"x", timeout=20)
    assert refusing.calls == 1


@pytest.mark.slow
async def test_the_budget_spares_a_service_that_is_down() -> None:
    refusing, calls = Refusing(grpc.StatusCode.UNAVAILABLE, 10_000), 100
    async with calling(refusing) as call:
        for _ in range(calls):
            with pytest.raises(grpc.aio.AioRpcError):
                await call(b"x", timeout=20)
    assert refusing.calls <= calls + 50


def test_a_tls_file_that_is_not_there_is_told() -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_channel("localhost:1", TlsSettings(ca=Path("/no/such/file.pem")), CommonSettings())
    assert caught.value.reason == "TLS_FILE_UNREADABLE"


@pytest.mark.parametrize("given", ["CERTIFICATE", "KEY"])
def test_half_a_pair_of_certificate_and_key_is_told(given: str) -> None:
    with pytest.raises(ValueError, match="TLS is incomplete"):
        Tls.from_environment({"DL4ALL_TLS_CA": "ca.pem", f"DL4ALL_TLS_{given}": "file.pem"})


@pytest.mark.parametrize("address", ["", " ", "http://patching:50052", "HTTPS://patching:50052", "grpc://patching", "patching: 50052"])
def test_what_is_no_address_of_a_part_is_told(address: str) -> None:
    with pytest.raises(ConfigurationError, match="write host:port") as caught:
        open_channel(address, TlsSettings(), CommonSettings())
    assert caught.value.reason == "ADDRESS_INVALID"


async def test_a_call_of_this_machine_takes_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    refusing = Refusing(grpc.StatusCode.OK, 0)
    async with calling(refusing) as call:
        assert await call(b"x", timeout=20) == b"x"


async def test_the_variable_of_the_proxy_of_other_calls_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://user:secret@127.0.0.1:9")
    with structlog.testing.capture_logs() as logs:
        for address in ("dns:///localhost:1", "dns:///patching:50052"):
            await open_channel(address, TlsSettings(), CommonSettings()).close()
    assert [(line["address"], line["variable"]) for line in logs] == [("dns:///patching:50052", "https_proxy")]
    assert "secret" not in str(logs)
