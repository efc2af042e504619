"""Channels to other services: round robin over what DNS names, retries with a budget, keepalive, limits, TLS."""

from __future__ import annotations

import json
from typing import Any, Final

import grpc

from services.common.settings import TlsSettings
from services.common.tls import channel_credentials

Options = list[tuple[str, Any]]

KEEPALIVE_SECONDS: Final = 10.0
"""A connection on which nothing comes is pinged after this time."""
KEEPALIVE_TIMEOUT_SECONDS: Final = 5.0
"""A ping that is not answered in this time ends the connection, and its calls with UNAVAILABLE."""

_SERVICE_CONFIG: Final = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.05s",
                "maxBackoff": "0.5s",
                "backoffMultiplier": 3,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.2},
}
"""Only UNAVAILABLE is retried, at most three times. The budget: each failure costs a token, each success returns 0.2, and below ten of
twenty tokens nothing is retried, so that retries never add more than a fifth to the load of a service that is down."""


def channel_options(max_message_bytes: int, tls: TlsSettings) -> Options:
    """Options of every channel between our parts.

    Args:
        max_message_bytes: largest message on the wire; a call of up to this size is kept for a retry.
        tls: for the name that is expected of servers.
    """
    options: Options = [
        ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.enable_retries", 1),
        ("grpc.per_rpc_retry_buffer_size", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.keepalive_time_ms", int(1000 * KEEPALIVE_SECONDS)),
        ("grpc.keepalive_timeout_ms", int(1000 * KEEPALIVE_TIMEOUT_SECONDS)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 1000),
        ("grpc.max_reconnect_backoff_ms", 2000),
        ("grpc.dns_min_time_between_resolutions_ms", 1000),
    ]
    if tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return options


def open_channel(address: str, tls: TlsSettings, max_message_bytes: int) -> grpc.aio.Channel:
    """Open a channel; it connects when it is first used.

    Args:
        address: ``dns:///name:port`` (every address of the name takes its turn), ``ipv4:a:port,b:port`` or ``host:port``.
        tls: how to trust and be trusted.
        max_message_bytes: largest message on the wire.

    Raises:
        ConfigurationError: a TLS file cannot be read.
    """
    options = channel_options(max_message_bytes, tls)
    credentials = channel_credentials(tls)
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, credentials, options=options)
