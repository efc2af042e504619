"""Certificates and their authority are replaced under load, in five processes with mutual TLS: no call fails, and nothing is started again."""

from __future__ import annotations

import shutil
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clients.cli.stack.parts import Ports, service_part
from deploy.tls.make_certificates import NAMES, write_all
from dl4all_client import DiagnosisClient, Tls
from services.common.parts import SERVICES
from services.common.tls import LOOK_SECONDS
from tests.running import TEST_SETTINGS, Running, eventually

_ENGINE = {"DL4ALL_CLASSIFICATION_ENGINE": "onnxruntime", "DL4ALL_PATCHING_ENGINE": "onnxruntime"}
"""A Triton takes no new certificates while it runs."""


@pytest.fixture
def used(tmp_path: Path) -> Path:
    """The folder that all parts read."""
    for authority in ("first", "second"):
        write_all(tmp_path / authority, NAMES, 1, wrong=False)
    return shutil.copytree(tmp_path / "first", tmp_path / "used")


def client_tls(folder: Path) -> Tls:
    return Tls(folder / "ca.pem", folder / "client.pem", folder / "client.key")


@contextmanager
def services(folder: Path) -> Iterator[dict[str, Running]]:
    tls = {"CA": "ca.pem", "CERTIFICATE": "server.pem", "KEY": "server.key"}
    settings = {**TEST_SETTINGS, **_ENGINE, **{f"DL4ALL_TLS_{name}": str(folder / file) for name, file in tls.items()}, "DL4ALL_TLS_MUTUAL": "true"}
    ports = Ports.free()
    parts = {name: Running(service_part(name, ports, settings), client_tls(folder)) for name in SERVICES}
    try:
        for running in parts.values():
            running.start()
        for running in parts.values():
            running.wait_serving()
        yield parts
    finally:
        for running in parts.values():
            running.end()


class Load:
    """Calls all the time: over one connection that stays, and over new ones. Nobody replaces files while it reads them."""

    def __init__(self, address: str, folder: Path, image: bytes) -> None:
        self.answers = 0
        self.errors: list[Exception] = []
        self.files = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._call, args=(address, folder, image))

    def _call(self, address: str, folder: Path, image: bytes) -> None:
        with DiagnosisClient(address, tls=client_tls(folder)) as staying:
            while not self._done.is_set():
                try:
                    assert staying.diagnose(image).cells
                    with self.files:
                        opened = DiagnosisClient(address, tls=client_tls(folder))
                    with opened as fresh:
                        assert fresh.diagnose(image).cells
                except Exception as error:
                    self.errors.append(error)
                self.answers += 2

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def presented(running: Running, folder: Path) -> str:
    """The certificate that a part presents."""
    import socket

    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.load_cert_chain(folder / "client.pem", folder / "client.key")
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", running.part.port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        return ssl.DER_cert_to_PEM_cert(connection.getpeercert(binary_form=True) or b"")


def replaced(folder: Path, *names: str) -> None:
    for name in names:
        shutil.copy(folder.parent / "second" / name, folder / name)


def test_an_authority_and_all_certificates_are_replaced_under_load(used: Path, phantom_cell: bytes) -> None:
    with services(used) as parts, Load(parts["gateway"].address, used, phantom_cell) as load:
        eventually(lambda: load.answers >= 4)
        both = b"".join((used.parent / authority / "ca.pem").read_bytes() for authority in ("first", "second"))
        (used / "ca.pem").write_bytes(both)
        time.sleep(2 * LOOK_SECONDS)
        with load.files:
            replaced(used, "server.key", "server.pem", "client.key", "client.pem")
        time.sleep(2 * LOOK_SECONDS)
        new = (used / "server.pem").read_text()
        eventually(lambda: all(presented(part, used) == new for part in parts.values()), what="everybody presents the new certificate")
        before = load.answers
        replaced(used, "ca.pem")
        time.sleep(2 * LOOK_SECONDS)
        eventually(lambda: load.answers >= before + 4)
        assert load.errors == []
        assert all(part.metrics()("dl4all_certificates_renewed_total") for part in parts.values())
        with (
            DiagnosisClient(parts["gateway"].address, tls=client_tls(used.parent / "first"), timeout=5.0) as old,
            pytest.raises(Exception, match=r"\S"),
        ):
            old.diagnose(phantom_cell)
    assert load.errors == []
