"""Let a gRPC server listen, and say in words why it cannot."""

from __future__ import annotations

import grpc

from services.common.addresses import host_and_port, why_not_listening
from services.common.errors import ConfigurationError


def check_host(host: str) -> None:
    """Refuse a host that is not this machine.

    Raises:
        ConfigurationError: HOST_UNKNOWN.
    """
    refused = why_not_listening(host, 0)
    if refused is not None and refused[0] == "HOST_UNKNOWN":
        raise ConfigurationError("HOST_UNKNOWN", f"The server cannot listen: {refused[1]}. Give an address of this machine in DL4ALL_HOST.")


def listen(server: grpc.aio.Server, host: str, port: int, credentials: grpc.ServerCredentials | None = None) -> int:
    """Add an address to a server.

    Args:
        server: that has not started.
        host: name or address of this machine.
        port: 0 for any free one.
        credentials: for TLS; plaintext without.

    Returns:
        The port.

    Raises:
        ConfigurationError: HOST_UNKNOWN or PORT_TAKEN.
    """
    check_host(host)
    address = host_and_port(host, port)
    try:
        return int(server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials))
    except RuntimeError as error:
        taken = why_not_listening(host, port)
        words = "another server runs there" if taken is None else taken[1]
        raise ConfigurationError("PORT_TAKEN", f"The server cannot listen on {address}: {words}.") from error
