"""Server bootstrap: one module that starts, drains and stops our gRPC servers."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import structlog
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.common.addresses import host_and_port, is_loopback
from services.common.admission.admission import Admission
from services.common.errors import ConfigurationError
from services.common.health import HealthServicer, Needs, NeedsNow, Readiness
from services.common.health_port import HealthPort
from services.common.interceptor import EarlyCheck, GuardInterceptor
from services.common.listening import check_host, listen
from services.common.metrics import serve_metrics
from services.common.settings import CommonSettings, ServiceSettings, TlsSettings
from services.common.tls import server_credentials

_log = structlog.get_logger("dl4all")
_STREAMS_OF_CONNECTION: Final = 256
"""Calls under way on one connection; the client's own library holds further calls back."""
_HANDSHAKE_MS: Final = 10_000


@dataclass(frozen=True)
class Registration:
    """A servicer, its service, the generated function that adds it to a server, what it needs to be ready, and checks of calls on their headers.

    Attributes:
        early: see ``GuardInterceptor``, by the short name of the method.
    """

    descriptor: ServiceDescriptor
    add: Callable[[Any, Any], None]
    servicer: object
    needs: NeedsNow = Needs
    early: Mapping[str, EarlyCheck] = field(default_factory=dict)

    @property
    def service(self) -> str:
        """Full name of the service."""
        return str(self.descriptor.full_name)


class Server:
    """A gRPC server with health, reflection, limits, TLS, metrics and a graceful end.

    Args:
        registrations: the servicers.
        settings: how to listen and how much to accept.
        ports: where to listen.
        tls: certificates; plaintext without.

    Raises:
        ConfigurationError: a TLS file cannot be read, the host is not known, or the port is taken.
    """

    def __init__(
        self, registrations: Sequence[Registration], settings: CommonSettings, ports: ServiceSettings, tls: TlsSettings | None = None
    ) -> None:
        self._settings = settings
        self._metrics_port = ports.metrics_port
        self._names = [r.service for r in registrations]
        self._admission = Admission(settings)
        early = {f"/{r.service}/{name}": check for r in registrations for name, check in r.early.items()}
        interceptor = GuardInterceptor(self._admission, settings.longest_call_seconds, early)
        self._server = grpc.aio.server(interceptors=[interceptor], options=_options(settings))
        for registration in registrations:
            registration.add(registration.servicer, self._server)
        self._readiness = Readiness(
            self._names, {r.service: r.needs for r in registrations}, settings.health_timeout_seconds, lambda: self._admission.is_open
        )
        self._health = HealthServicer(self._readiness, settings.health_interval_seconds)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if settings.reflection:
            reflection.enable_server_reflection([*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME], self._server)
        self.port = self._listen(ports.port, tls or TlsSettings())
        self.health_port = None if ports.health_port is None else HealthPort(self._health, interceptor, settings.host, ports.health_port)
        self._stop_metrics: Callable[[], None] = lambda: None

    async def start(self) -> None:
        """Accept calls; health is right from the first moment."""
        metrics_port = 0
        if self._settings.metrics:
            metrics_port, self._stop_metrics = serve_metrics(self._settings.host, self._metrics_port)
        await self._health.start()
        await self._server.start()
        ports = {"metrics_port": metrics_port}
        if self.health_port is not None:
            await self.health_port.start()
            ports["health_port"] = self.health_port.port
        _log.info("serving", address=host_and_port(self._settings.host, self.port), tls=self._tls, services=self._names, **ports)

    async def stop(self) -> None:
        """Say NOT_SERVING, serve for a moment until callers have noticed, refuse new calls, finish the accepted ones."""
        self._readiness.drain()
        try:
            await self._health.look()
            _log.info("draining", address=host_and_port(self._settings.host, self.port))
            await asyncio.sleep(self._settings.drain_delay_seconds)
            await self._health.stop()
        finally:
            await self._server.stop(self._settings.drain_seconds)
            if self.health_port is not None:
                await self.health_port.stop()
            self._stop_metrics()
        _log.info("stopped", address=host_and_port(self._settings.host, self.port))

    async def run_until_signal(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, stop.set)
        await self.start()
        await stop.wait()
        await self.stop()

    def _listen(self, port: int, tls: TlsSettings) -> int:
        credentials, host = server_credentials(tls), self._settings.host
        check_host(host)
        if credentials is None and not (self._settings.plaintext or is_loopback(host)):
            raise ConfigurationError(
                "PLAINTEXT_REFUSED",
                f"{host} is open to other machines and there is no TLS: name certificates in DL4ALL_TLS_CERTIFICATE, DL4ALL_TLS_KEY"
                " and DL4ALL_TLS_CA, or set DL4ALL_PLAINTEXT=true where a closed network protects the server.",
            )
        self._tls = "off" if credentials is None else "mutual" if tls.mutual else "on"
        return listen(self._server, host, port, credentials)


def _options(settings: CommonSettings) -> list[tuple[str, Any]]:
    limit = settings.max_message_bytes
    return [
        ("grpc.max_receive_message_length", limit),
        ("grpc.max_send_message_length", limit),
        ("grpc.so_reuseport", 0),
        ("grpc.compression_enabled_algorithms_bitset", 1),  # none: a small compressed message can unpack to gigabytes
        # A message that nobody reads yet keeps its first 512 KiB in the server; the window grows only for a message that is being read.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", 524_288),
        ("grpc.max_concurrent_streams", _STREAMS_OF_CONNECTION),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
        ("grpc.max_connection_age_ms", int(1000 * settings.max_connection_age_seconds)),
        ("grpc.max_connection_age_grace_ms", int(1000 * (settings.longest_call_seconds + settings.answer_seconds))),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
        ("grpc.http2.max_ping_strikes", 0),
    ]
