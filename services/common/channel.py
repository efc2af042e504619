"""Channels to other services: round robin over the addresses that DNS gives, retries with a budget, keepalive, limits, TLS."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from typing import Any, Final

import grpc
import structlog

from services.common.addresses import is_of_this_machine
from services.common.errors import ConfigurationError
from services.common.renewed_channel import RenewedChannel
from services.common.settings import CommonSettings, TlsSettings

Options = list[tuple[str, Any]]

_log = structlog.get_logger("dl4all")
_PROXIES: Final = ("grpc_proxy", "https_proxy", "http_proxy")
"""Variables that gRPC reads, the first that is set."""

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


def proxy_options(address: str) -> Options:
    """Options of a channel to this address: calls of this machine never go through a proxy, whatever ``http_proxy`` says."""
    return [("grpc.enable_http_proxy", 0)] if is_of_this_machine(address) else []


def check_address(address: str) -> None:
    """Refuse what gRPC would look for in vain.

    Raises:
        ConfigurationError: the address of a part is empty, or a URL of another protocol.
    """
    if not address.strip() or re.search(r"\s", address) or re.match(r"(?i)(https?|grpcs?|tcp)://", address):
        raise ConfigurationError("ADDRESS_INVALID", f"{address!r} is no address of a part: write host:port, or dns:///host:port, without http://.")


def say_proxy(address: str) -> None:
    """Log which variable names the proxy that calls of this address go through, unless ``no_proxy`` excepts it."""
    variable = next((name for name in _PROXIES if os.environ.get(name)), "")
    if variable and not is_of_this_machine(address):
        _log.warning("calls go through a proxy, unless no_proxy excepts the address", address=address, variable=variable)


def open_channel(address: str, tls: TlsSettings, common: CommonSettings) -> grpc.aio.Channel:
    """Open a channel; it connects when it is first used. When its TLS files are replaced, further calls use the new ones.

    Args:
        address: ``dns:///name:port`` (round robin over all addresses of the name), ``ipv4:a:port,b:port`` or ``host:port``.
        tls: how to trust and be trusted.
        common: limits and keepalive.

    Raises:
        ConfigurationError: the address is none, or a TLS file cannot be read or fits no other.
    """
    check_address(address)
    options = [*channel_options(common, tls), *proxy_options(address)]
    say_proxy(address)

    def make(credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
        if credentials is None:
            return grpc.aio.insecure_channel(address, options=options)
        return grpc.aio.secure_channel(address, credentials, options=options)

    if tls.ca is None:
        return make(None)
    return RenewedChannel(tls, make, common.longest_call_seconds)
