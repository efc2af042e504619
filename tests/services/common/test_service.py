"""Tests of starting a service in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.common.addresses import is_loopback
from services.common.channel import open_channel
from services.common.errors import ConfigurationError
from services.common.server import Server
from services.common.settings import CommonSettings, ServiceSettings, TlsSettings
from tests.paths import ROOT

pytestmark = pytest.mark.processes

NAMES = ("patching", "preprocessing", "classification", "retrieval", "gateway", "embedded")


def _run(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"services.{name}", *arguments]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("name", NAMES)
def test_help_names_and_explains_every_setting(name: str) -> None:
    done = _run(name, "--help")
    assert done.returncode == 0
    own = "DL4ALL_" if name == "embedded" else f"DL4ALL_{name.upper()}_"
    for setting in (f"{own}PORT", f"{own}METRICS_PORT", "DL4ALL_MAX_CONCURRENT_CALLS", "DL4ALL_TLS_CA", "DL4ALL_TRACING"):
        assert setting in done.stdout
    lines = done.stdout.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("DL4ALL_"):
            assert len(lines[number + 1].strip()) > 10, line


@pytest.mark.parametrize(
    ("name", "environment", "said"),
    [
        ("patching", {"DL4ALL_PATCHING_PORT": "99999"}, "port: Input should be less than or equal to 65535"),
        ("retrieval", {"DL4ALL_RELEASES": "/no/such/folder"}, "RELEASES_NOT_FOUND"),
        ("classification", {"DL4ALL_CLASSIFICATION_ENGINE": "abacus"}, "engine"),
        ("classification", {"DL4ALL_CLASSIFICATION_DEVICE": "gpu"}, "GPU_UNAVAILABLE"),
    ],
)
def test_wrong_settings_end_it_with_one_line(name: str, environment: dict[str, str], said: str) -> None:
    done = _run(name, **environment)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.startswith(f"{name}: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("setting", ["PORT", "METRICS_PORT"])
def test_a_port_that_is_taken_is_told(setting: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        other = {"DL4ALL_PATCHING_PORT": "0", "DL4ALL_PATCHING_METRICS_PORT": "0"}
        done = _run("patching", **{**other, f"DL4ALL_PATCHING_{setting}": str(taken.getsockname()[1])})
    assert done.returncode == 1
    assert f"({setting}_TAKEN)" in done.stderr
    assert "Traceback" not in done.stderr
    if setting == "METRICS_PORT":
        assert "DL4ALL_METRICS_PORT" in done.stderr
        assert "DL4ALL_METRICS=false" in done.stderr


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.5", ""])
def test_a_host_that_is_not_here_is_told_and_no_port_is_blamed(host: str) -> None:
    done = _run("patching", DL4ALL_PATCHING_PORT="0", DL4ALL_PATCHING_METRICS_PORT="0", DL4ALL_HOST=host)
    assert done.returncode == 1
    assert "(HOST_UNKNOWN)" in done.stderr
    assert "TAKEN" not in done.stderr
    assert host in done.stderr


@pytest.mark.parametrize("host", ["::1", "[::1]"])
async def test_a_server_listens_on_ipv6_with_its_metrics(host: str) -> None:
    server = Server([], CommonSettings(host=host, drain_delay_seconds=0.0, drain_seconds=0.0), ServiceSettings())
    await server.start()
    try:
        async with open_channel(f"[::1]:{server.port}", TlsSettings(), CommonSettings()) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest(service="live"), timeout=20)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    finally:
        await server.stop()


async def test_files_of_tls_that_are_no_certificates_are_told_and_no_port_is_blamed(tmp_path: Path) -> None:
    for name in ("key", "certificate", "ca"):
        (tmp_path / name).write_text("no PEM", encoding="utf-8")
    tls = TlsSettings(key=tmp_path / "key", certificate=tmp_path / "certificate", ca=tmp_path / "ca")
    with pytest.raises(ConfigurationError, match="not PEM") as caught:
        Server([], CommonSettings(), ServiceSettings(), tls)
    assert caught.value.reason == "TLS_FILE_UNREADABLE"


def test_a_server_that_others_reach_needs_certificates_or_a_word() -> None:
    ports = {"DL4ALL_PATCHING_PORT": "0", "DL4ALL_PATCHING_METRICS_PORT": "0", "DL4ALL_HOST": "0.0.0.0"}
    done = _run("patching", **ports)
    assert done.returncode == 1
    assert "(PLAINTEXT_REFUSED)" in done.stderr
    assert "DL4ALL_PLAINTEXT=true" in done.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "[::1]", "localhost"])
def test_addresses_that_only_this_machine_reaches(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "lab.example", ""])
def test_addresses_that_others_reach(host: str) -> None:
    assert not is_loopback(host)
