"""Channels to other services: round robin over the addresses that DNS gives, retries with a budget, keepalive, limits, TLS."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import grpc

from services.common.settings import CommonSettings, TlsSettings
from services.common.tls import channel_credentials

Options = list[tuple[str, Any]]

RETRIED: Final = ("UNAVAILABLE", "CANCELLED")
"""Statuses that are retried between our services. A gRPC server answers CANCELLED to calls that arrive in the instant in which it stops listening.
A call that the caller itself cancels is never retried."""


def _service_config(retried: Sequence[str]) -> str:
    """Round robin; at most three retries, with a budget.

    Each failure costs a token and each success returns one. At fifty of a hundred tokens or fewer nothing is retried. One of two replicas can turn
    all calls away while it ends (as Triton does), and no call is lost. A service that is down altogether gets no more retries after some fifty
    failures.
    """
    retry = {
        "maxAttempts": 4,
        "initialBackoff": "0.05s",
        "maxBackoff": "0.5s",
        "backoffMultiplier": 3,
        "retryableStatusCodes": list(retried),
    }
    return json.dumps(
        {
            "loadBalancingConfig": [{"round_robin": {}}],
            "methodConfig": [{"name": [{}], "retryPolicy": retry}],
            "retryThrottling": {"maxTokens": 100, "tokenRatio": 1.0},
        }
    )


def channel_options(common: CommonSettings, tls: TlsSettings, retried: Sequence[str] = RETRIED) -> Options:
    """Options of every channel between our parts.

    Args:
        common: for the largest message on the wire (a call of up to this size is kept for a retry) and the keepalive.
        tls: for the name that is expected of servers.
        retried: statuses that are retried.
    """
    options: Options = [
        ("grpc.service_config", _service_config(retried)),
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.enable_retries", 1),
        ("grpc.per_rpc_retry_buffer_size", common.max_message_bytes),
        ("grpc.max_receive_message_length", common.max_message_bytes),
        ("grpc.max_send_message_length", common.max_message_bytes),
        ("grpc.keepalive_time_ms", int(1000 * common.keepalive_seconds)),
        ("grpc.keepalive_timeout_ms", int(1000 * common.keepalive_timeout_seconds)),
        # Sent data, such as a health check, postpones the keepalive. The transport's own pings then detect a dead connection; without this option
        # they wait a minute for an answer.
        ("grpc.http2.ping_timeout_ms", int(1000 * common.keepalive_timeout_seconds)),
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


def open_channel(address: str, tls: TlsSettings, common: CommonSettings) -> grpc.aio.Channel:
    """Open a channel; it connects when it is first used.

    Args:
        address: ``dns:///name:port`` (round robin over all addresses of the name), ``ipv4:a:port,b:port`` or ``host:port``.
        tls: how to trust and be trusted.
        common: limits and keepalive.

    Raises:
        ConfigurationError: a TLS file cannot be read.
    """
    options = channel_options(common, tls)
    credentials = channel_credentials(tls)
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, credentials, options=options)
