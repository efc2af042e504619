"""Make an authority and certificates for trying and testing TLS between the parts.

    python deploy/tls/make_certificates.py OUT [--name HOST ...] [--days 7] [--wrong]

Writes ``ca.pem``; ``server.pem`` and ``server.key`` for the given names (default: localhost, 127.0.0.1 and the names of
the services); ``client.pem`` and ``client.key`` for mutual TLS. Every part can use the server's pair for both. With
``--wrong`` also what must be refused: ``expired``, ``other-name``, and ``stranger`` of another authority (``other-ca.pem``).

For tests and trials only: on a cluster let its own authority (such as cert-manager) issue them.
"""

from __future__ import annotations

import argparse
import datetime
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from services.common.parts import PARTS

NAMES = ("localhost", "127.0.0.1", *PARTS)


@dataclass(frozen=True)
class Authority:
    """Who signs."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def make_authority(name: str, days: int) -> Authority:
    """A self-signed authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(name)
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = _builder(subject, subject, key, days).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return Authority(builder.add_extension(usage, critical=True).sign(key, hashes.SHA256()), key)


def issue(authority: Authority, names: Sequence[str], days: int) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A certificate for servers and clients of these names; with negative days an expired one."""
    key = ec.generate_private_key(ec.SECP256R1())
    alternatives = [_alternative(name) for name in names]
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = (
        _builder(_name(names[0]), authority.certificate.subject, key, days)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    return builder.sign(authority.key, hashes.SHA256()), key


def write_all(out: Path, names: Sequence[str], days: int, *, wrong: bool) -> None:
    """Write all files into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    authority = make_authority("DL4ALL trial authority", days)
    _write_certificate(out / "ca.pem", authority.certificate)
    _write_pair(out, "server", issue(authority, names, days))
    _write_pair(out, "client", issue(authority, ["dl4all-client"], days))
    if wrong:
        stranger = make_authority("Another authority", days)
        _write_certificate(out / "other-ca.pem", stranger.certificate)
        _write_pair(out, "stranger", issue(stranger, names, days))
        _write_pair(out, "expired", issue(authority, names, -1))
        _write_pair(out, "other-name", issue(authority, ["elsewhere.example"], days))


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    start = now - datetime.timedelta(days=max(1, 2 - days))
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _write_pair(out: Path, name: str, pair: tuple[x509.Certificate, ec.EllipticCurvePrivateKey]) -> None:
    certificate, key = pair
    _write_certificate(out / f"{name}.pem", certificate)
    content = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = out / f"{name}.key"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)


def _write_certificate(path: Path, certificate: x509.Certificate) -> None:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to write into")
    parser.add_argument("--name", action="append", help="host name or address of the servers; may be given often")
    parser.add_argument("--days", type=int, default=7, help="how long they are valid (default: %(default)s)")
    parser.add_argument("--wrong", action="store_true", help="also write what must be refused")
    given = parser.parse_args()
    write_all(given.out, given.name or NAMES, given.days, wrong=given.wrong)


if __name__ == "__main__":
    main()
