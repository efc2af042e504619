"""Rolling restart of every part under load, found by a real DNS server: no accepted call is lost."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from clients.cli.stack.parts import Ports, service_part, triton_part
from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all_client import AsyncDiagnosisClient, ServiceError
from services.common.parts import SERVICES, TRITON
from tests.dns import DnsServer
from tests.running import TEST_SETTINGS, Running, eventually

HOSTS = ("127.0.0.2", "127.0.0.3")
IN_FLIGHT = 4
SETTINGS = {**TEST_SETTINGS, "DL4ALL_MAX_CONNECTION_AGE_SECONDS": "1", "DL4ALL_TRITON_MAX_CONNECTION_AGE_SECONDS": "1"}


@dataclass
class Cluster:
    """One replica of every part, each found by the name ``<part>.test``."""

    dns: DnsServer
    ports: Ports = field(default_factory=Ports.free)
    replicas: dict[str, Running] = field(default_factory=dict)

    def target(self, name: str) -> str:
        return self.dns.target(f"{name}.test", self.ports.grpc[name])

    def start(self, name: str, host: str) -> Running:
        if name == TRITON:
            part = triton_part(self.ports, {**SETTINGS, "DL4ALL_HOST": host}, ("--host", host))
        else:
            inner = {f"DL4ALL_GATEWAY_{other.upper()}_ADDRESS": self.target(other) for other in SERVICES if other != "gateway"}
            of_triton = {f"DL4ALL_{other}_TRITON_ADDRESS": self.target(TRITON) for other in ("PATCHING", "CLASSIFICATION")}
            found = {**inner, **of_triton}
            part = service_part(name, self.ports, {**SETTINGS, **found, "DL4ALL_HOST": host})
        return Running(part).start()

    def served(self, name: str, host: str) -> float:
        """RPCs, or inferences of Triton, that a replica has answered."""
        part = Running(replace(self.replicas[name].part, environment={"DL4ALL_HOST": host}))
        metrics = part.metrics()
        part.end()
        return metrics("nv_inference_request_success") if name == TRITON else metrics("dl4all_requests_total", code="OK")


@pytest.fixture(scope="module")
def cluster(triton_installed: None) -> Iterator[Cluster]:
    with DnsServer({f"{name}.test": [HOSTS[0]] for name in (*SERVICES, TRITON)}) as dns:
        made = Cluster(dns)
        try:
            for name in (TRITON, *SERVICES):
                made.replicas[name] = made.start(name, HOSTS[0])
            for name in SERVICES:
                made.replicas[name].wait_serving()
            yield made
        finally:
            for running in made.replicas.values():
                running.end()


class Load:
    """Diagnoses an image over and over, a few at once, from a thread of its own."""

    def __init__(self, target: str, image: bytes) -> None:
        self._target, self._image = target, image
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self.answered = 0
        self.lost: list[ServiceError] = []

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(60)

    async def _run(self) -> None:
        async with AsyncDiagnosisClient(self._target, timeout=30) as client:
            await asyncio.gather(*(self._call(client) for _ in range(IN_FLIGHT)))

    async def _call(self, client: AsyncDiagnosisClient) -> None:
        while not self._stopping.is_set():
            try:
                assert isinstance(await client.diagnose(self._image), diagnosis_pb2.Diagnosis)
                self.answered += 1
            except ServiceError as error:
                self.lost.append(error)


@pytest.mark.parametrize("name", [*SERVICES, TRITON])
def test_no_accepted_call_is_lost(cluster: Cluster, phantom_cell: bytes, name: str) -> None:
    old = cluster.replicas[name]
    new_host = next(host for host in HOSTS if host != old.host)
    with Load(cluster.target("gateway"), phantom_cell) as load:
        eventually(lambda: load.answered > 10, 60)
        new = cluster.start(name, new_host)
        try:
            if name == TRITON:
                eventually(lambda: _is_up(new), 240, "the new Triton is up")
            else:
                new.wait_serving()
            cluster.dns.records[f"{name}.test"] = [old.host, new_host]
            eventually(lambda: cluster.served(name, new_host) > 3, 60, "the new replica is found and used")
            if name == TRITON:
                cluster.dns.records[f"{name}.test"] = [new_host]
                eventually(lambda: _is_idle(old), 60, "the old Triton is left alone")
            status = old.stop()
            cluster.dns.records[f"{name}.test"] = [new_host]
            before = load.answered
            eventually(lambda: load.answered > before + 20, 60, "the load goes on")
        finally:
            cluster.replicas[name] = new
            old.end()
    assert status == 0
    assert [str(error) for error in load.lost[:3]] == [], cluster.replicas["gateway"].log.read_text()[-3000:]


def _is_idle(triton: Running) -> bool:
    """Whether no caller is left. A Triton that is told to end refuses calls for seconds before it closes its connections, so it must
    be out of DNS for the age of a connection before: on a cluster, a preStop hook."""
    before = triton.metrics()("nv_inference_request_success")
    time.sleep(1.0)
    return triton.metrics()("nv_inference_request_success") == before


def _is_up(triton: Running) -> bool:
    try:
        return triton.metrics()("nv_inference_request_success") >= 0 and b"Started Metrics Service" in triton.log.read_bytes()
    except OSError:
        return False
