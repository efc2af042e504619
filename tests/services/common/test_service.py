"""Tests of starting a service in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from services.common.server import is_loopback
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
