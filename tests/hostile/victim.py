"""A real server under attack, and a good client beside the attacker."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from clients.cli.stack.parts import Launch, free_ports
from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all_client import DiagnosisClient, ServiceError
from tests.running import Running

MIB = 2**20
FULL = os.environ.get("DL4ALL_HOSTILE_FULL") == "1"
"""The nightly form: the limits of a real server, attacks in full size, figures in ``build/hostile.jsonl``."""
_SCALED_DOWN = {
    "DL4ALL_WORKERS": "2",
    "DL4ALL_RECEIVED_BYTES": str(144 * MIB),
    "DL4ALL_MAX_CONCURRENT_STREAMS": "8",
    "DL4ALL_CONTENDED_SECONDS": "0.5",
    "DL4ALL_MESSAGE_SECONDS": "4",
    "DL4ALL_ANSWER_SECONDS": "4",
    "DL4ALL_IDLE_SECONDS": "4",
    "DL4ALL_GATEWAY_STREAM_BYTES": str(32 * MIB),
    "DL4ALL_GATEWAY_UNREAD_SECONDS": "0.5",
    "DL4ALL_PATCHING_SLIDE_GRACE_SECONDS": "1",
}
"""Limits scaled down, so that an attack of some seconds meets them."""
SETTINGS = {"DL4ALL_WORKERS": "2"} if FULL else _SCALED_DOWN


def sized(scaled: int, full: int) -> int:
    """A size of an attack: scaled down, and in the nightly form."""
    return full if FULL else scaled


def start_victim(settings: Mapping[str, str]) -> Running:
    """All five services in one process, on both loopback addresses: so attackers and good clients can have two addresses."""
    port, metrics_port = free_ports(2)
    own = {"DL4ALL_HOST": "localhost", "DL4ALL_PORT": str(port), "DL4ALL_METRICS_PORT": str(metrics_port)}
    launch = Launch("embedded", (sys.executable, "-P", "-m", "services.embedded"), {**own, **settings}, port, metrics_port)
    running = Running(launch).start()
    running.wait_serving()
    return running


def resident_bytes(running: Running) -> int:
    """Memory that the process holds now."""
    assert running.process is not None
    (line,) = (n for n in Path(f"/proc/{running.process.pid}/status").read_text().splitlines() if n.startswith("VmRSS:"))
    return 1024 * int(line.split()[1])


def judged(diagnosis: diagnosis_pb2.Diagnosis) -> tuple[int, list[float]]:
    """What a right answer says."""
    return diagnosis.finding, [round(cell.blast_probability, 4) for cell in diagnosis.cells]


@dataclass
class GoodClient:
    """Diagnoses one image again and again, as a laboratory would, and keeps what it saw."""

    address: str
    image: bytes
    right: tuple[int, list[float]]
    victim: Running
    peak: int = 0
    seconds: list[float] = field(default_factory=list)
    wrong: list[object] = field(default_factory=list)

    def share_within(self, seconds: float) -> float:
        """Share of the answers that took no longer."""
        return sum(s <= seconds for s in self.seconds) / len(self.seconds)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Call in a thread for the duration of the block; one more answer comes after it."""
        leave = threading.Event()
        thread = threading.Thread(target=self._work, args=(leave,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            leave.set()
            thread.join(timeout=60.0)

    def _work(self, leave: threading.Event) -> None:
        with DiagnosisClient(self.address, timeout=60.0) as client:
            last = False
            while not last:
                last = leave.is_set()
                self.peak = max(self.peak, resident_bytes(self.victim))
                started = time.perf_counter()
                try:
                    answer = judged(client.diagnose(self.image))
                except ServiceError as error:
                    self.wrong.append((error.code, error.reason, error.message))
                else:
                    self.seconds.append(time.perf_counter() - started)
                    if answer != self.right:
                        self.wrong.append(answer)
                time.sleep(0.05)
