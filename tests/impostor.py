"""A real gRPC server between two parts that passes calls on, late or spoilt, as a test says."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import grpc

Spoil = Callable[[str, bytes], bytes]
_HEALTH = "/grpc.health."
_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0)]


class Impostor(grpc.GenericRpcHandler):
    """Passes every call on to the real part, byte for byte.

    Args:
        target: the real part.

    Attributes:
        delay: seconds before a call is passed on; health is never delayed.
        spoil: makes the passed answer from method and bytes; health is never spoilt.
        passed: methods of the calls that came, health left out.
        cancelled: methods of the calls that were cancelled by their caller.
    """

    def __init__(self, target: str) -> None:
        self.delay = 0.0
        self.spoil: Spoil | None = None
        self.passed: list[str] = []
        self.cancelled: list[str] = []
        self._channel = grpc.insecure_channel(target, options=_OPTIONS)
        self._server = grpc.server(ThreadPoolExecutor(32), handlers=[self], options=_OPTIONS)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def close(self) -> None:
        self._server.stop(0)
        self._channel.close()

    def honest(self) -> None:
        self.delay, self.spoil = 0.0, None

    def service(self, handler_call_details: Any) -> grpc.RpcMethodHandler:
        method, metadata = handler_call_details.method, handler_call_details.invocation_metadata

        def call(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            if not method.startswith(_HEALTH):
                self.passed.append(method)
                self._wait(method, context)
            kept = [(key, value) for key, value in metadata if not key.startswith((":", "grpc-")) and key != "user-agent"]
            onward = cast(Any, self._channel.stream_stream(method))(requests, timeout=context.time_remaining(), metadata=kept)
            context.add_callback(onward.cancel)
            try:
                for answer in onward:
                    yield answer if self.spoil is None or method.startswith(_HEALTH) else self.spoil(method, answer)
            except grpc.RpcError as error:
                failed = cast(Any, error)
                context.set_trailing_metadata(failed.trailing_metadata())
                context.abort(failed.code(), failed.details())

        return grpc.stream_stream_rpc_method_handler(call)

    def _wait(self, method: str, context: grpc.ServicerContext) -> None:
        end = time.monotonic() + self.delay
        while time.monotonic() < end:
            if not context.is_active():
                self.cancelled.append(method)
                context.abort(grpc.StatusCode.CANCELLED, "cancelled")
            time.sleep(0.01)


class Babbler:
    """Listens and answers every connection with noise: no gRPC server at all."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen(16)
        self.port = int(self._socket.getsockname()[1])
        threading.Thread(target=self._babble, daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _babble(self) -> None:
        noise = random.Random(1)
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(0.2)
                try:
                    connection.recv(4096)
                    connection.sendall(noise.randbytes(512))
                except OSError:
                    continue
