"""Real processes for tests: the parts of a stack, each started, stopped, killed and paused at will; bound to the life of the test run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from clients.cli.stack.parts import Launch, Ports, free_ports, service_part, triton_part
from clients.cli.stack.processes import guarded_command, kill_group, remove_shared_memory
from dl4all_client import DiagnosisClient, ServiceError
from dl4all_client.channel import Tls, open_channel
from services.common.parts import SERVICES, TRITON
from tests.impostor import Impostor
from tests.paths import ROOT

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNREACHABLE = -1
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
TEST_SETTINGS = {
    "DL4ALL_HEALTH_INTERVAL_SECONDS": "0.2",
    "DL4ALL_HEALTH_TIMEOUT_SECONDS": "0.5",
    "DL4ALL_DRAIN_DELAY_SECONDS": "0.3",
    "DL4ALL_KEEPALIVE_SECONDS": "2",
    "DL4ALL_KEEPALIVE_TIMEOUT_SECONDS": "1",
}
"""Shorter times than in earnest, so that tests of faults do not wait long."""


PATIENCE = 28.0
"""Seconds that any step may take on a busy machine: far more than it needs, and less than a part that hangs would take."""

START_PATIENCE = 300.0
"""Seconds that a part may take to start: a Triton warms up all models, and several may do so beside other work."""


def runs(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def eventually(condition: Callable[[], bool], seconds: float = 0.0, what: str = "") -> float:
    """Wait until a condition holds, ``PATIENCE`` at least; returns the seconds that it took."""
    started = time.monotonic()
    limit = max(seconds, PATIENCE)
    while not condition():
        if time.monotonic() - started > limit:
            raise AssertionError(f"not so within {limit} s: {what or condition}")
        time.sleep(0.05)
    return time.monotonic() - started


def _new_log() -> Path:
    descriptor, path = tempfile.mkstemp(prefix="dl4all-test-", suffix=".log")
    os.close(descriptor)
    return Path(path)


@dataclass
class Running:
    """A part in a process of its own; its output goes to a file."""

    part: Launch
    tls: Tls | None = None
    log: Path = field(default_factory=lambda: _new_log())
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> Running:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                guarded_command(self.part),
                env=self.part.full_environment(),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(timeout=30)
        kill_group(self.process.pid)
        remove_shared_memory(self.part, self.process.pid)

    def pause(self) -> None:
        self.send(signal.SIGSTOP)

    def resume(self) -> None:
        self.send(signal.SIGCONT)

    def stop(self, seconds: float = 90.0) -> int:
        """Ask it to end and wait for that; returns its exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.send(signal.SIGTERM)
        try:
            return self.process.wait(timeout=seconds)
        finally:
            self.kill()

    def end(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.kill()
        self.log.unlink(missing_ok=True)

    @property
    def host(self) -> str:
        return self.part.environment.get("DL4ALL_HOST", "127.0.0.1")

    @property
    def address(self) -> str:
        """Address by the name in the certificates, where it listens on the usual loopback address."""
        return f"{'localhost' if self.host == '127.0.0.1' else self.host}:{self.part.port}"

    def channel(self) -> grpc.Channel:
        return open_channel(self.address, self.tls)

    def health(self, service: str = "", timeout: float = 5.0) -> int:
        """Status by ``grpc.health.v1``; ``UNREACHABLE`` where nothing answers."""
        with self.channel() as channel:
            try:
                return int(
                    cast(Any, health_pb2_grpc.HealthStub(channel)).Check(health_pb2.HealthCheckRequest(service=service), timeout=timeout).status
                )
            except grpc.RpcError:
                return UNREACHABLE

    def wait_serving(self, service: str = "", seconds: float = START_PATIENCE) -> None:
        assert self.process is not None

        def serving() -> bool:
            if self.process is not None and self.process.poll() is not None:
                raise AssertionError(f"{self.part.name} ended:\n{self.log.read_text()[-4000:]}")
            return self.health(service, timeout=2.0) == SERVING

        eventually(serving, seconds, f"{self.part.name} is serving\n{self.log.read_text()[-3000:]}")

    def metrics(self) -> Metrics:
        with urllib.request.urlopen(f"http://{self.host}:{self.part.metrics_port}/metrics", timeout=10) as answer:
            return Metrics(answer.read().decode())

    def peak_bytes(self) -> int:
        """Most memory that the process ever held."""
        assert self.process is not None
        (line,) = (n for n in Path(f"/proc/{self.process.pid}/status").read_text().splitlines() if n.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])

    def cpu_seconds(self) -> float:
        """CPU time of the process and of its children, alive."""
        assert self.process is not None
        return sum(_cpu_seconds(pid) for pid in [self.process.pid, *_children(self.process.pid)])


class Metrics:
    """Samples of a Prometheus page."""

    def __init__(self, page: str) -> None:
        self._samples: list[tuple[str, dict[str, str], float]] = []
        for line in page.splitlines():
            if found := _SAMPLE.match(line):
                self._samples.append((found[1], dict(_LABEL.findall(found[2] or "")), float(found[3])))

    def __call__(self, name: str, **labels: str) -> float:
        """Sum of the samples of this name whose labels include these; 0 where there are none."""
        return sum(value for n, given, value in self._samples if n == name and labels.items() <= given.items())


@dataclass
class Stack:
    """Five services and a Triton, found at free ports."""

    ports: Ports
    parts: dict[str, Running]

    @classmethod
    def make(
        cls,
        settings: Mapping[str, str] | None = None,
        own: Mapping[str, Mapping[str, str]] | None = None,
        triton: tuple[str, ...] = (),
        tls: Tls | None = None,
    ) -> Stack:
        """Describe a stack.

        Args:
            settings: for all parts.
            own: further settings by name of the part.
            triton: further options of Triton's script.
            tls: how the tests themselves call.
        """
        ports = Ports.free()
        shared = {**TEST_SETTINGS, **(settings or {})}
        parts = {name: Running(service_part(name, ports, {**shared, **(own or {}).get(name, {})}), tls) for name in SERVICES}
        parts[TRITON] = Running(triton_part(ports, {**shared, **(own or {}).get(TRITON, {})}, triton))
        return cls(ports, parts)

    def start(self) -> Stack:
        for running in self.parts.values():
            running.start()
        self.wait_serving()
        return self

    def wait_serving(self, seconds: float = START_PATIENCE) -> None:
        for name in SERVICES:
            self.parts[name].wait_serving(seconds=seconds)

    def end(self) -> None:
        for running in self.parts.values():
            running.end()

    def __getitem__(self, name: str) -> Running:
        return self.parts[name]


def own_copy(running: Running, **environment: str) -> Running:
    """The same service at ports of its own with other settings."""
    port, metrics_port = free_ports(2)
    name = running.part.name.upper()
    ports = {f"DL4ALL_{name}_PORT": str(port), f"DL4ALL_{name}_METRICS_PORT": str(metrics_port)}
    return Running(replace(running.part, environment={**running.part.environment, **ports, **environment}, port=port, metrics_port=metrics_port))


@dataclass
class Deceived:
    """A gateway and a classification of their own, which reach everything through impostors."""

    gateway: Running
    classification: Running
    impostors: dict[str, Impostor]

    def diagnose(self, image: bytes, timeout: float = 20.0) -> ServiceError | None:
        with DiagnosisClient(self.gateway.address, timeout=timeout) as client:
            try:
                assert client.diagnose(image, explain=True).cells
            except ServiceError as error:
                return error
        return None


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            child = int(stat.parent.name)
            found += [child, *_children(child)]
    return found
