"""Credentials from TLS settings: one module that reads certificates. Files that are replaced while a process runs are used from then on."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import grpc
import structlog

from services.common import metrics
from services.common.errors import ConfigurationError
from services.common.settings import TlsSettings

LOOK_SECONDS: Final = 1.0
"""Files are looked at once in so many seconds at most."""
_Made = TypeVar("_Made")
_log = structlog.get_logger("dl4all")


@dataclass(frozen=True)
class Pems:
    """What the files of TLS settings hold; None for what the settings do not name."""

    ca: bytes | None
    certificate: bytes | None
    key: bytes | None

    @classmethod
    def of(cls, tls: TlsSettings) -> Pems:
        """Read the files.

        Raises:
            ConfigurationError: a file cannot be read.
        """
        return cls(*(None if path is None else _read(path) for path in (tls.ca, tls.certificate, tls.key)))


class TlsFiles:
    """The PEM files of TLS settings. They may be replaced at any time, all at once or one after the other.

    Args:
        tls: names the files.

    Raises:
        ConfigurationError: a file cannot be read, or they do not fit together.

    Attributes:
        pems: what is to be used now.
    """

    def __init__(self, tls: TlsSettings) -> None:
        self._tls = tls
        self.pems = Pems.of(tls)
        self._said = ""
        try:
            _check(tls)
        except OSError as error:
            raise ConfigurationError("TLS_FILE_UNREADABLE", f"The TLS files are not PEM, or do not fit together: {error}.") from error
        self._looked = time.monotonic()
        self._lock = threading.Lock()

    def look(self) -> bool:
        """Look at the files, at most once in ``LOOK_SECONDS``.

        What cannot be used, such as a key whose certificate is not there yet, is logged once and passed over.

        Returns:
            Whether ``pems`` are new.
        """
        with self._lock:
            if time.monotonic() - self._looked < LOOK_SECONDS:
                return False
            self._looked = time.monotonic()
            try:
                found = Pems.of(self._tls)
                if found == self.pems:
                    return False
                _check(self._tls)
                if Pems.of(self._tls) != found:
                    return False
            except (ConfigurationError, OSError) as error:
                if str(error) != self._said:
                    _log.warning("new TLS files cannot be used", cause=str(error))
                self._said = str(error)
                return False
            self.pems, self._said = found, ""
        metrics.CERTIFICATES_RENEWED.inc()
        _log.info("new TLS files are used")
        return True


class Renewed(Generic[_Made]):
    """Something that is made with credentials of TLS files, and made anew when they are replaced.

    Args:
        tls: names the files.
        make: makes it, from credentials; None where TLS is off.
        end: ends what was replaced; calls under way are to be finished.

    Raises:
        ConfigurationError: a file cannot be read, or they do not fit together.

    Attributes:
        held: what was made last.
    """

    def __init__(self, tls: TlsSettings, make: Callable[[grpc.ChannelCredentials | None], _Made], end: Callable[[_Made], object]) -> None:
        self._files = None if tls.ca is None else TlsFiles(tls)
        self._make = make
        self._end = end
        self.held = self._new()

    def now(self) -> _Made:
        """What is to be used now."""
        if self._files is not None and self._files.look():
            replaced, self.held = self.held, self._new()
            self._end(replaced)
        return self.held

    def _new(self) -> _Made:
        if self._files is None:
            return self._make(None)
        pems = self._files.pems
        return self._make(grpc.ssl_channel_credentials(pems.ca, pems.key, pems.certificate))


def server_credentials(tls: TlsSettings) -> grpc.ServerCredentials | None:
    """Credentials of a server; None where TLS is off. Every handshake uses the files of that time.

    Raises:
        ConfigurationError: a file cannot be read, or they do not fit together.
    """
    if tls.certificate is None:
        return None
    files = TlsFiles(tls)

    def renewed() -> Any:
        return _configuration(files.pems, mutual=tls.mutual) if files.look() else None

    return grpc.dynamic_ssl_server_credentials(_configuration(files.pems, mutual=tls.mutual), renewed, tls.mutual)


def _configuration(pems: Pems, *, mutual: bool) -> grpc.ServerCertificateConfiguration:
    assert pems.key is not None
    assert pems.certificate is not None
    return grpc.ssl_server_certificate_configuration([(pems.key, pems.certificate)], pems.ca if mutual else None)


def _check(tls: TlsSettings) -> None:
    """Refuse files that are not PEM, or a key that is not that of the certificate.

    Raises:
        OSError: ``ssl.SSLError`` is one.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if tls.ca is not None:
        context.load_verify_locations(tls.ca)
    if tls.certificate is not None:
        context.load_cert_chain(tls.certificate, tls.key, password="")  # without one, OpenSSL asks at the terminal for that of an encrypted key


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError("TLS_FILE_UNREADABLE", f"The TLS file {path} cannot be read: {error.strerror}.") from error
