"""A channel whose certificates are replaced: calls under way go on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from deploy.tls.make_certificates import NAMES, write_all
from services.common import tls as module
from services.common.renewed_channel import RenewedChannel
from services.common.settings import TlsSettings


class Echo(grpc.GenericRpcHandler):
    """Answers every message of a stream, of any method."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        async def stream(requests: Any, context: Any) -> Any:
            async for request in requests:
                yield request

        return grpc.stream_stream_rpc_method_handler(stream)


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
async def test_a_stream_goes_on_over_the_old_channel_and_new_calls_use_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.0)
    write_all(tmp_path, NAMES, 1, wrong=False)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([Echo()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    opened: list[grpc.aio.Channel] = []

    def make(credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
        assert credentials is not None
        opened.append(grpc.aio.insecure_channel(f"127.0.0.1:{port}"))
        return opened[-1]

    async with RenewedChannel(TlsSettings(ca=tmp_path / "ca.pem"), make, grace=10.0) as channel:
        under_way = channel.stream_stream("/any/method")()
        await under_way.write(b"before")
        assert await under_way.read() == b"before"
        write_all(tmp_path, NAMES, 1, wrong=False)
        method = getattr(channel, kind)("/any/other")
        given = _one() if kind.startswith("stream") else b"one"
        called = method(given, timeout=10)
        assert (await called if kind.endswith("unary") else [answer async for answer in called]) in (b"one", [b"one"])
        assert len(opened) == 2
        await under_way.write(b"after")
        assert await under_way.read() == b"after"
        await under_way.done_writing()
        assert await under_way.read() is grpc.aio.EOF
        async with asyncio.timeout(20):
            while opened[0].get_state() is not grpc.ChannelConnectivity.SHUTDOWN:
                await asyncio.sleep(0.01)
        assert channel.get_state() is opened[1].get_state() is grpc.ChannelConnectivity.READY
        await channel.channel_ready()
    assert opened[1].get_state() is grpc.ChannelConnectivity.SHUTDOWN
    await server.stop(0)


async def _one() -> Any:
    yield b"one"
