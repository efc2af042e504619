"""Who calls: the identity by which a server divides what it has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import unquote

_ALTERNATIVE_NAME: Final = "x509_subject_alternative_name"
_COMMON_NAME: Final = "x509_common_name"
_URI: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:[!-~]+")
_PORT: Final = re.compile(r":\d+$")


class PeerContext(Protocol):
    """The part of a servicer context that tells who calls."""

    def peer(self) -> str:
        """Address of the other end, as gRPC writes it."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Facts that the transport has checked; empty without TLS."""


@dataclass(frozen=True)
class Caller:
    """A caller.

    Attributes:
        identity: tells callers apart; the certificate's name, else the address without its port.
        certificate_name: name in the certificate that the transport has checked; empty without mutual TLS.
        peer: address with port, as gRPC writes it; empty for a service that calls another one in its own process.
    """

    identity: str
    certificate_name: str = ""
    peer: str = ""


def caller_of(context: PeerContext) -> Caller:
    """The caller of an RPC: by the URI in its certificate, else by another name in it, else by its address."""
    peer = context.peer()
    name = _certificate_name(context.auth_context())
    return Caller(f"certificate {name}" if name else f"address {_address(peer)}", name, peer)


def _certificate_name(facts: Mapping[str, Iterable[bytes]]) -> str:
    names = [_text(name) for name in facts.get(_ALTERNATIVE_NAME, ())]
    common = [_text(name) for name in facts.get(_COMMON_NAME, ())]
    return next((name for name in names if _URI.fullmatch(name) and "://" in name), next(iter([*common, *names]), ""))


def _address(peer: str) -> str:
    """The address without its port; all callers of a Unix socket are one."""
    return "unix" if peer.startswith("unix:") else _PORT.sub("", unquote(peer))


def _text(name: bytes) -> str:
    """A name as it can be logged and kept."""
    return "".join(c if c.isprintable() else "?" for c in name.decode("utf-8", "replace"))
