"""Server bootstrap: one place that knows how a gRPC server of ours starts, listens, drains and stops."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.common.interceptor import GuardInterceptor
from services.common.settings import CommonSettings

_log = structlog.get_logger("dl4all")


@dataclass(frozen=True)
class Registration:
    """A servicer and the generated function that adds it to a server."""

    service: str
    add: Callable[[Any, Any], None]
    servicer: object


class Server:
    """A gRPC server with health, reflection, limits and a graceful end.

    Args:
        registrations: the servicers.
        settings: where to listen and how much to accept.
    """

    def __init__(self, registrations: Sequence[Registration], settings: CommonSettings) -> None:
        self._settings = settings
        self._names = [r.service for r in registrations]
        limit = settings.max_message_bytes
        options = [
            ("grpc.max_receive_message_length", limit),
            ("grpc.max_send_message_length", limit),
            ("grpc.so_reuseport", 0),
        ]
        self._server = grpc.aio.server(interceptors=[GuardInterceptor(settings.max_concurrent_calls)], options=options)
        for registration in registrations:
            registration.add(registration.servicer, self._server)
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if settings.reflection:
            reflection.enable_server_reflection([*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME], self._server)
        self.port = self._server.add_insecure_port(f"{settings.host}:{settings.port}")

    async def start(self) -> None:
        """Accept calls and say SERVING."""
        await self._server.start()
        await self._say(health_pb2.HealthCheckResponse.SERVING)
        _log.info("serving", address=f"{self._settings.host}:{self.port}", services=self._names)

    async def stop(self) -> None:
        """Say NOT_SERVING, refuse new calls, finish the accepted ones."""
        await self._say(health_pb2.HealthCheckResponse.NOT_SERVING)
        await self._server.stop(self._settings.drain_seconds)
        _log.info("stopped", address=f"{self._settings.host}:{self.port}")

    async def run_until_signal(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, stop.set)
        await self.start()
        await stop.wait()
        await self.stop()

    async def _say(self, status: int) -> None:
        for name in ("", *self._names):
            await self._health.set(name, status)
