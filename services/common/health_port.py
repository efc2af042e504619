"""A port for health alone, without TLS: the probes of Kubernetes present no certificate."""

from __future__ import annotations

from typing import Final

import grpc
from grpc_health.v1 import health_pb2_grpc

from services.common.health import HealthServicer
from services.common.interceptor import GuardInterceptor
from services.common.listening import listen

_MAX_BYTES: Final = 4096
"""Largest probe; a true one has the name of a release at most."""


class HealthPort:
    """A second server of the same process. It answers ``grpc.health.v1`` as the first one does, and nothing else.

    Args:
        health: of the services.
        interceptor: of the first server; probes of both share the room that is theirs.
        host: where to listen.
        port: 0 for any free one.

    Raises:
        ConfigurationError: the host is not known, or the port is taken.
    """

    def __init__(self, health: HealthServicer, interceptor: GuardInterceptor, host: str, port: int) -> None:
        options = [("grpc.max_receive_message_length", _MAX_BYTES), ("grpc.so_reuseport", 0)]
        self._server = grpc.aio.server(interceptors=[interceptor], options=options)
        health_pb2_grpc.add_HealthServicer_to_server(health, self._server)
        self.port = listen(self._server, host, port)

    async def start(self) -> None:
        """Answer probes."""
        await self._server.start()

    async def stop(self) -> None:
        """End at once."""
        await self._server.stop(0)
