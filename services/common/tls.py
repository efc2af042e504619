"""Credentials from TLS settings: one module that reads certificates."""

from __future__ import annotations

from pathlib import Path

import grpc

from services.common.errors import ConfigurationError
from services.common.settings import TlsSettings


def server_credentials(tls: TlsSettings) -> grpc.ServerCredentials | None:
    """Credentials of a server; None where TLS is off.

    Raises:
        ConfigurationError: a file cannot be read.
    """
    if tls.certificate is None or tls.key is None:
        return None
    pair = (_read(tls.key), _read(tls.certificate))
    authorities = _read(tls.ca) if tls.ca is not None and tls.mutual else None
    return grpc.ssl_server_credentials([pair], root_certificates=authorities, require_client_auth=tls.mutual)


def channel_credentials(tls: TlsSettings) -> grpc.ChannelCredentials | None:
    """Credentials of a client; None where TLS is off.

    Raises:
        ConfigurationError: a file cannot be read.
    """
    if tls.ca is None:
        return None
    key = None if tls.key is None else _read(tls.key)
    certificate = None if tls.certificate is None else _read(tls.certificate)
    return grpc.ssl_channel_credentials(_read(tls.ca), key, certificate)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError("TLS_FILE_UNREADABLE", f"The TLS file {path} cannot be read: {error.strerror}.") from error
