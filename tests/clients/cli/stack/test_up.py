"""``dl4all up``: the stack starts, is watched, and leaves nothing behind, whichever part ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from clients.cli.stack.log_lines import tidy
from clients.cli.stack.parts import Ports, host_to_call
from dl4all_client import DiagnosisClient
from services.common.parts import SERVICES, TRITON
from services.common.phantom import CellKind, encode_png, single_cell
from tests.paths import ROOT
from tests.running import eventually

pytestmark = pytest.mark.processes

MARK = "DL4ALL_TEST_MARK"


@dataclass
class Up:
    """A running ``dl4all up``; its processes are found by a mark in their environment."""

    log: Path
    environment: dict[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ("--free-ports",)
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def start(self) -> Up:
        command = [sys.executable, "-m", "clients.cli.main", "up", *self.arguments]
        self.process = subprocess.Popen(
            command,
            env={**os.environ, **self.environment, MARK: self.mark},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=self.log.open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        return self

    def text(self) -> str:
        return self.log.read_text()

    def wait_healthy(self) -> None:
        eventually(lambda: "All are healthy" in self.text() or self.process.poll() is not None, 90)
        assert self.process.poll() is None, self.text()

    def port(self, name: str) -> int:
        found = re.search(rf"^  {name} +localhost:(\d+)", self.text(), re.M)
        assert found, self.text()
        return int(found[1])

    def alive(self) -> dict[int, str]:
        """Processes that carry the mark, with their command lines; the supervisor left out."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if int(folder.name) != self.process.pid and f"{MARK}={self.mark}".encode() in (folder / "environ").read_bytes():
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
        return found

    def pid(self, words: str) -> int:
        (pid,) = [pid for pid, line in self.alive().items() if words in line]
        return pid


@pytest.fixture
def up(tmp_path: Path, triton_installed: None) -> Iterator[Up]:
    made = Up(tmp_path / "up.log")
    yield made
    _end(made)


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Up]:
    """The five services without a Triton."""
    made = Up(tmp_path / "up.log", arguments=("--no-triton", "--free-ports"))
    yield made
    _end(made)


def _end(up: Up) -> None:
    if up.process.poll() is None:
        up.process.kill()
        up.process.wait()
    for pid in up.alive():
        os.kill(pid, signal.SIGKILL)


def _shared_memory(triton: int) -> list[Path]:
    return list(Path("/dev/shm").glob(f"dl4all_triton_{triton}_*"))


def test_starts_restarts_what_dies_and_stops_on_ctrl_c(up: Up) -> None:
    up.start().wait_healthy()
    image = encode_png(single_cell(5, CellKind.LYMPHOCYTE))
    with DiagnosisClient(f"localhost:{up.port('gateway')}") as client:
        assert client.diagnose(image).provenance.engine == "triton"
    old = {name: up.pid(f"services.{name}") for name in SERVICES}
    triton = up.pid("bin/tritonserver")
    assert _shared_memory(triton)
    os.kill(old["retrieval"], signal.SIGKILL)
    os.kill(triton, signal.SIGKILL)
    eventually(lambda: "retrieval ended with status -9" in up.text() and "triton ended with status -9" in up.text(), 20)
    assert not _shared_memory(triton)
    with DiagnosisClient(f"localhost:{up.port('gateway')}") as client:

        def works() -> bool:
            try:
                return bool(client.diagnose(image).cells)
            except Exception:
                return False

        eventually(works, 60, "what died is there again")
    assert {name: up.pid(f"services.{name}") for name in SERVICES if name != "retrieval"} == {n: p for n, p in old.items() if n != "retrieval"}
    triton = up.pid("bin/tritonserver")
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(60) == 0
    assert up.alive() == {}
    assert not _shared_memory(triton)


def test_nothing_is_left_when_the_supervisor_is_killed(up: Up) -> None:
    up.start().wait_healthy()
    triton = up.pid("bin/tritonserver")
    assert len(up.alive()) >= len(SERVICES) + 1
    up.process.kill()
    up.process.wait()
    eventually(lambda: up.alive() == {}, 40, str(up.alive()))
    assert not _shared_memory(triton)


def test_a_paused_part_does_not_keep_the_stack_from_stopping(up: Up) -> None:
    up.arguments = ("--free-ports", "--no-triton")
    up.start().wait_healthy()
    os.kill(up.pid("services.patching"), signal.SIGSTOP)
    up.process.send_signal(signal.SIGINT)
    eventually(lambda: "stopping" in up.text(), 10)
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(30) == 0
    assert up.alive() == {}


def test_a_service_that_cannot_start_ends_all_and_says_why(up: Up) -> None:
    up.environment = {"DL4ALL_RELEASES": "/no/such/folder"}
    up.start()
    assert up.process.wait(90) == 1
    assert "/no/such/folder" in up.text()
    assert "while the stack was starting" in up.text()
    assert "Traceback" not in up.text()
    assert up.alive() == {}


def test_ports_that_are_taken_are_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", Ports.default().grpc["gateway"]))
            taken.listen()
        except OSError:
            pass  # another process has it, which serves as well
        up = Up(tmp_path / "up.log", arguments=("--no-triton",)).start()
        assert up.process.wait(60) == 1
    assert "50051 (gateway)" in up.text()


def test_a_proxy_of_the_hospital_is_not_asked_for_calls_of_this_machine(services: Up) -> None:
    services.environment = dict.fromkeys(("http_proxy", "https_proxy", "grpc_proxy"), "http://127.0.0.1:9") | {"no_proxy": ""}
    services.start().wait_healthy()


def test_a_stack_on_ipv6_finds_itself(services: Up) -> None:
    services.environment = {"DL4ALL_HOST": "::1"}
    services.start().wait_healthy()
    assert re.search(r"^  gateway +\[::1\]:\d+ +metrics http://\[::1\]:", services.text(), re.M)


def test_a_stack_that_is_not_healthy_in_time_says_which_part_and_why(services: Up) -> None:
    services.arguments = (*services.arguments, "--start-seconds", "1")
    services.start()
    assert services.process.wait(60) == 1
    assert "the stack was not healthy within 1 s" in services.text()
    assert re.search(r"^  gateway: (no answer from localhost:\d+.+|it answers at localhost:\d+, but .+)", services.text(), re.M), services.text()


@pytest.mark.parametrize(
    ("listening", "called"),
    [
        *((host, "localhost") for host in ("", "127.0.0.1", "0.0.0.0", "::", "[::]")),
        *(("::1", "[::1]"), ("[::1]", "[::1]"), ("10.0.0.7", "10.0.0.7"), ("lab.example", "lab.example")),
    ],
)
def test_parts_are_called_where_they_listen(listening: str, called: str) -> None:
    assert host_to_call(listening) == called


def test_lines_of_services_are_tidied() -> None:
    line = '{"method": "/dl4all.diagnosis.v1.DiagnosisService/Diagnose", "code": "OK", "event": "call", "level": "info", "timestamp": "2026-01-02T03:04:05Z"}'
    shown = tidy("gateway", line)
    assert shown is not None
    assert "03:04:05 call" in shown
    assert "method=DiagnosisService/Diagnose code=OK" in shown.replace("v1.", "")
    assert (
        tidy(TRITON, '2026-11-25T09:55:17Z W 7507 pinned_memory_manager.cc:170] "no pool"') == "[white]triton        [/] [yellow]09:55:17 no pool [/]"
    )
    assert tidy(TRITON, "+------+") is None
    assert tidy(TRITON, "2026-11-25T09:55:17Z I 7507 server.cc:604] ") is None
    assert tidy("patching", "Traceback [most recent]") == "[green]patching      [/] Traceback \\[most recent]"
