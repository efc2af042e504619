"""Hosts that servers listen on and addresses that channels call: which belong to this machine, and how they are written."""

from __future__ import annotations

import errno
import ipaddress
import socket
from typing import Any, Final

_LOCALHOST: Final = "localhost"


def bare_host(host: str) -> str:
    """A host without the brackets that an IPv6 address has in front of a port."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def host_and_port(host: str, port: int) -> str:
    """``host:port``, with an IPv6 address in brackets."""
    bare = bare_host(host)
    return f"[{bare}]:{port}" if ":" in bare and not bare.startswith("unix:") else f"{bare}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    bare = bare_host(host)
    if bare == _LOCALHOST or bare.startswith("unix:"):
        return True
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return False


def is_of_this_machine(address: str) -> bool:
    """Whether all places that an address of gRPC names are on this machine; calls of them never go through a proxy.

    The SDK has the same rule in ``dl4all_client.addresses``: neither imports the other, and a test compares them.
    """
    scheme, _, rest = address.partition(":")
    if scheme in ("unix", "unix-abstract"):
        return True
    if scheme == "dns" and rest.startswith("//"):
        rest = rest[2:].partition("/")[2]
    targets = rest.split(",") if scheme in ("ipv4", "ipv6") else [rest if scheme == "dns" else address]
    return all(_is_here(bare_host(target.rpartition(":")[0] or target)) for target in targets)


def why_not_listening(host: str, port: int) -> tuple[str, str] | None:
    """Why no server can listen there.

    Returns:
        A reason for programs and one for people; None where a server can listen.
    """
    bare = bare_host(host)
    if bare.startswith("unix:"):
        return None
    try:
        found = socket.getaddrinfo(bare, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE) if bare.strip() else []
    except (OSError, UnicodeError):  # the second of a host that is no name, such as one of dots
        found = []
    if not found:
        return "HOST_UNKNOWN", f"{host!r} is neither a name that can be resolved nor an IP address"
    errors = [error for family, kind, protocol, _, address in found if (error := _error_of_binding(family, kind, protocol, address)) is not None]
    if len(errors) == len(found) and all(error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) for error in errors):
        return "HOST_UNKNOWN", f"{host} is no address of this machine"
    failed = next((error for error in errors if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)), None)
    if failed is None:
        return None
    words = "another server runs there" if failed.errno == errno.EADDRINUSE else str(failed.strerror)
    return "PORT_TAKEN", f"{words}; choose another port"


def _error_of_binding(family: int, kind: int, protocol: int, address: tuple[Any, ...]) -> OSError | None:
    try:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return error
    return None


def _is_here(host: str) -> bool:
    if host.rstrip(".").lower().rpartition(".")[2] == _LOCALHOST:
        return True
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback or found.is_unspecified
