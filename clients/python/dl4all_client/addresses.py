"""Addresses of gateways: what can be written, which belong to this machine, and which go through a proxy."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Final

_GRPC_FORMS: Final = ("unix", "unix-abstract", "vsock", "xds", "passthrough")
"""Schemes of gRPC that are taken as they are written."""
_USUAL_PORT: Final = 50051
_LARGEST_PORT: Final = 65535
_HOST: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_.])?")
_URL: Final = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*):/+")
_PROXIES: Final = ("grpc_proxy", "https_proxy", "http_proxy")
"""Variables that gRPC reads, the first that is set."""
_EXCEPTIONS: Final = ("no_grpc_proxy", "no_proxy")


def check_address(address: str) -> None:
    """Refuse what is no address of a gateway.

    Raises:
        ValueError: it is empty or a URL, has no port or a path, or its host is none; the message says what to write.
    """
    if not address.strip():
        raise ValueError(f"The address is empty: write HOST:PORT, such as localhost:{_USUAL_PORT}.")
    if address.partition(":")[0] in _GRPC_FORMS:
        return
    for target in _targets(address):
        if reason := _fault(target):
            raise ValueError(f"{address!r} is no address ({reason}): write {_instead(address)}.")


def is_of_this_machine(address: str) -> bool:
    """Whether an address belongs to the loopback of this machine."""
    if address.partition(":")[0] in ("unix", "unix-abstract"):
        return True
    return all(_is_loopback(_split(target)[0]) for target in _targets(address))


def proxy_note(address: str, environment: Mapping[str, str]) -> str:
    """A sentence that names the variable of the proxy through which gRPC calls an address; empty where there is none.

    Args:
        address: as the client has it.
        environment: variables of this process.
    """
    name = next((name for name in _PROXIES if environment.get(name)), "")
    if not name or not environment[name].startswith("http://") or is_of_this_machine(address):
        return ""
    host = _split(_targets(address)[0])[0]
    exceptions = next((environment[name] for name in _EXCEPTIONS if environment.get(name)), "")
    if any(_excepts(entry.strip(), host) for entry in exceptions.split(",")):
        return ""
    return f"The call went through the proxy that the variable {name} names; to call {host} directly, add it to no_proxy."


def _targets(address: str) -> list[str]:
    """``host:port`` of every place that an address names."""
    scheme, _, rest = address.partition(":")
    if scheme in ("ipv4", "ipv6"):
        return rest.split(",")
    if scheme == "dns":
        return [rest.removeprefix("//").partition("/")[2] if rest.startswith("//") else rest]
    return [address]


def _split(target: str) -> tuple[str, str]:
    """Host without brackets, and port; empty where it is missing."""
    if target.startswith("["):
        host, _, port = target[1:].partition("]")
        return host, port.removeprefix(":") if port.startswith(":") else ""
    if _is_ipv6(target):
        return target, ""
    host, _, port = target.rpartition(":") if ":" in target else (target, "", "")
    return host, port


def _fault(target: str) -> str:
    """What is wrong with ``host:port``; empty where nothing is."""
    host, port = _split(target)
    faults = {
        "an address is no URL": _URL.match(target) is not None,
        "an address has no path": "/" in target,
        "an address has no spaces": re.search(r"\s", target) is not None,
        "the port is missing": not port,
        "an IPv6 address stands in brackets": not target.startswith("[") and _is_ipv6(host),
        f"a port is a number of 1 to {_LARGEST_PORT}": not _is_port(port),
        "the host is missing": not host,
        "its host is no name and no IP address": _is_ipv6(host) is False if target.startswith("[") else _HOST.fullmatch(host) is None,
    }
    return next((fault for fault, holds in faults.items() if holds), "")


def _instead(address: str) -> str:
    """The address that was probably meant."""
    text = _URL.sub("", address, count=1).strip()
    text = text.partition("/")[0].rpartition("@")[2]
    host, port = _split(text)
    usable = "localhost" if not host or host.isdigit() else f"[{host}]" if _is_ipv6(host) else host if _HOST.fullmatch(host) else "HOST"
    return f"{usable}:{port if _is_port(port) else _USUAL_PORT}"


def _is_port(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,5}", text) is not None and 1 <= int(text) <= _LARGEST_PORT


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    if host.rstrip(".").lower().rpartition(".")[2] == "localhost":
        return True
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback or found.is_unspecified


def _excepts(entry: str, host: str) -> bool:
    """Whether an entry of ``no_proxy`` holds for a host: the end of a name, or a network."""
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return bool(entry) and host.lower().endswith(entry.lower())
