"""The metrics port, and a release that cannot be used."""

from __future__ import annotations

import json
import shutil
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from dl4all_client import DiagnosisClient, ServiceError
from tests.hostile.victim import MIB, GoodClient, sized
from tests.running import SERVING, Running


def test_half_requests_at_the_metrics_port(victim: Running, good: GoodClient) -> None:
    before = _threads(victim)
    with good.at_work(), ExitStack() as stack:
        for _ in range(sized(200, 1000)):
            half = stack.enter_context(socket.create_connection(("localhost", victim.part.metrics_port), timeout=5.0))
            half.send(b"GET /metrics HTTP/1.1\r\nHost: victim\r\n")
        assert _threads(victim) - before < 20
        time.sleep(6.0)
        with urllib.request.urlopen(f"http://localhost:{victim.part.metrics_port}/metrics", timeout=10) as page:
            assert b"dl4all_requests_total" in page.read()


def _threads(running: Running) -> int:
    assert running.process is not None
    (line,) = (n for n in Path(f"/proc/{running.process.pid}/status").read_text().splitlines() if n.startswith("Threads:"))
    return int(line.split()[1])


@pytest.fixture
def broken(releases: Path) -> Iterator[str]:
    """A release with a large library that does not match its checksum, put into the folder while the server runs."""
    index = json.loads((releases / "index.json").read_text())
    folder = releases / "broken-1"
    copied = shutil.copytree(releases / index["default"], releases.parent / "broken-1")
    release = json.loads((copied / "release.json").read_text())
    release["id"] = "broken-1"
    (copied / "release.json").write_text(json.dumps(release))
    with (copied / release["library"]["file"]).open("wb") as library:
        library.truncate(sized(512, 2048) * MIB)
    copied.rename(folder)
    yield "broken-1"
    shutil.rmtree(folder)


def test_a_release_with_a_large_broken_library(victim: Running, attacked: str, broken: str, good: GoodClient, field: bytes) -> None:
    with good.at_work(), DiagnosisClient(attacked) as client:
        until = time.monotonic() + 5.0
        while time.monotonic() < until:
            with pytest.raises(ServiceError) as caught:
                client.diagnose(field, release=broken)
            assert caught.value.code in ("NOT_FOUND", "FAILED_PRECONDITION")
        assert victim.health() == SERVING
