"""A real server in its own process, as ``dl4all serve`` starts it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from services.common.phantom import CellKind, PhantomOptions, encode_png, single_cell, smear_field


@dataclass
class ServerProcess:
    process: subprocess.Popen[str]
    address: str

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        return self.process.wait(timeout=60)


def start_server(**environment: str) -> ServerProcess:
    process = subprocess.Popen(
        [sys.executable, "-m", "services.embedded"],
        env={**os.environ, "DL4ALL_PORT": "0", "DL4ALL_METRICS_PORT": "0", **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if '"serving"' in line:
            address = json.loads(line)["address"]
            _drain(process)
            return ServerProcess(process, address)
    raise AssertionError("the server did not start:\n" + "".join(seen))


def _drain(process: subprocess.Popen[str]) -> None:
    import threading

    threading.Thread(target=lambda: process.stderr and process.stderr.read(), daemon=True).start()


@pytest.fixture(scope="session")
def server() -> Iterator[ServerProcess]:
    running = start_server()
    yield running
    running.terminate()
    running.wait()


@pytest.fixture
def fresh_server() -> Iterator[ServerProcess]:
    running = start_server()
    yield running
    if running.process.poll() is None:
        running.terminate()
        running.wait()


@pytest.fixture
def patient_server() -> Iterator[ServerProcess]:
    """A server that refuses no image because of its expected wait, which depends on the speed of the machine."""
    running = start_server(DL4ALL_GATEWAY_INTERACTIVE_WAIT_SECONDS="1000")
    yield running
    running.terminate()
    running.wait()


@pytest.fixture(scope="session")
def phantom_field() -> bytes:
    return encode_png(smear_field(3, PhantomOptions(width=800, height=600, cells=8)))


@pytest.fixture(scope="session")
def phantom_cell() -> bytes:
    return encode_png(single_cell(5, CellKind.LYMPHOCYTE))
