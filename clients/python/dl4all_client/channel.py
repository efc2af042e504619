"""Channels to the gateway: round robin over the addresses that DNS gives, retries of unanswered calls, keepalive, TLS."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc

from dl4all_client.addresses import check_address, is_of_this_machine

MAX_MESSAGE_BYTES: Final = 24 * 1024 * 1024
_SERVICE_CONFIG: Final = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 3,
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ],
    "retryThrottling": {"maxTokens": 100, "tokenRatio": 1.0},
}
"""At most three retries, with a budget: each failure costs a token, each success returns one, and at fifty or fewer nothing is retried.
A server answers CANCELLED to calls that arrive in the instant in which it stops listening."""
_OPTIONS: Final = [
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.per_rpc_retry_buffer_size", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
]


@dataclass(frozen=True)
class Tls:
    """How to trust a server and be trusted by it.

    Attributes:
        ca: PEM file with the authorities that servers are checked against.
        certificate: PEM file with the certificate that is presented, where servers ask for one.
        key: PEM file with its key; certificate and key come together.
        server_name: name that the server's certificate must carry where it differs from the address.
    """

    ca: Path
    certificate: Path | None = None
    key: Path | None = None
    server_name: str = ""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("TLS is incomplete: a certificate needs its key, and a key its certificate.")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Tls | None:
        """From ``DL4ALL_TLS_CA``, ``_CERTIFICATE``, ``_KEY`` and ``_SERVER_NAME``, the variables of the services; None without ``DL4ALL_TLS_CA``.

        Raises:
            ValueError: a certificate without its key, or a key without its certificate.
        """
        ca = environment.get("DL4ALL_TLS_CA")
        if not ca:
            return None
        certificate, key = (environment.get(f"DL4ALL_TLS_{name}") for name in ("CERTIFICATE", "KEY"))
        name = environment.get("DL4ALL_TLS_SERVER_NAME", "")
        return cls(Path(ca), Path(certificate) if certificate else None, Path(key) if key else None, name)

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files.

        Raises:
            OSError: a file cannot be read.
        """
        key = None if self.key is None else self.key.read_bytes()
        certificate = None if self.certificate is None else self.certificate.read_bytes()
        return grpc.ssl_channel_credentials(self.ca.read_bytes(), key, certificate)


def open_channel(address: str, tls: Tls | None = None) -> grpc.Channel:
    """Open a channel for plain code.

    Raises:
        ValueError: the address is none; the message says what to write.
    """
    options = _options(address, tls)
    return grpc.insecure_channel(address, options=options) if tls is None else grpc.secure_channel(address, tls.credentials(), options=options)


def open_aio_channel(address: str, tls: Tls | None = None) -> grpc.aio.Channel:
    """Open a channel for asyncio.

    Raises:
        ValueError: the address is none; the message says what to write.
    """
    options = _options(address, tls)
    return (
        grpc.aio.insecure_channel(address, options=options) if tls is None else grpc.aio.secure_channel(address, tls.credentials(), options=options)
    )


def _options(address: str, tls: Tls | None) -> list[tuple[str, Any]]:
    """Options of a channel; calls of this machine never go through a proxy."""
    check_address(address)
    direct = [("grpc.enable_http_proxy", 0)] if is_of_this_machine(address) else []
    named = [("grpc.ssl_target_name_override", tls.server_name)] if tls is not None and tls.server_name else []
    return [*_OPTIONS, *direct, *named]
