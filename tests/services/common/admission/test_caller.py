"""Who calls: by certificate, else by address."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pytest

from services.common.admission.caller import Caller, caller_of


@dataclass
class Context:
    address: str = "ipv4:10.0.0.7:40120"
    facts: Mapping[str, Iterable[bytes]] = field(default_factory=dict)

    def peer(self) -> str:
        return self.address

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        return self.facts


@pytest.mark.parametrize(
    ("peer", "identity"),
    [
        ("ipv4:10.0.0.7:40120", "address ipv4:10.0.0.7"),
        ("ipv6:%5B::1%5D:40120", "address ipv6:[::1]"),
        ("unix:/tmp/socket", "address unix"),
        ("", "address "),
    ],
)
def test_without_a_certificate_the_address_without_its_port_counts(peer: str, identity: str) -> None:
    assert caller_of(Context(peer)) == Caller(identity, "", peer)


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        ({"x509_subject_alternative_name": [b"lis.example", b"spiffe://lab/lis"], "x509_common_name": [b"LIS"]}, "spiffe://lab/lis"),
        ({"x509_subject_alternative_name": [b"lis.example"], "x509_common_name": [b"LIS"]}, "LIS"),
        ({"x509_subject_alternative_name": [b"lis.example"]}, "lis.example"),
        ({"transport_security_type": [b"ssl"]}, ""),
    ],
)
def test_a_certificate_names_the_caller(facts: Mapping[str, Iterable[bytes]], name: str) -> None:
    caller = caller_of(Context(facts=facts))
    assert caller.certificate_name == name
    assert caller.identity == (f"certificate {name}" if name else "address ipv4:10.0.0.7")
