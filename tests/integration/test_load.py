"""The short form of the load test on a real server: it passes, and Ctrl-C ends the server and leaves what there is."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.load.processes import family
from tests.load.results import LoadReport, read
from tests.paths import ROOT
from tests.running import eventually, runs

pytestmark = pytest.mark.processes


def _command(out: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "tests.load", "--target", "embedded", "--out", str(out), *options]


def test_the_short_form_passes(tmp_path: Path) -> None:
    done = subprocess.run(_command(tmp_path, "--short"), cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    report = read(LoadReport, tmp_path / "load.json")
    assert report.complete
    assert len(report.results) == 1
    assert len(report.checks) >= 6
    assert all(check.holds for check in report.checks)
    assert report.results[0].capacity is not None
    assert set(report.results[0].capacity.usage.cpu_ms_per_image) == {"embedded", "generator"}
    assert "<svg" in (tmp_path / "load.html").read_text(encoding="utf-8")


def test_ctrl_c_ends_the_server_and_leaves_what_there_is(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("w") as written:
        process = subprocess.Popen(_command(tmp_path, "--workloads", "crops", "--seconds", "300"), cwd=ROOT, stderr=written, start_new_session=True)
    try:
        eventually(lambda: bool(_servers(process.pid)), 120.0, "the server was started")
        servers = _servers(process.pid)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 130, log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    eventually(lambda: not any(runs(pid) for pid in servers), what="the server has ended")
    report = read(LoadReport, tmp_path / "load.json")
    assert not report.complete
    assert "ended early" in (tmp_path / "load.html").read_text(encoding="utf-8")


def _servers(pid: int) -> list[int]:
    """Processes of the services that a process has started."""
    return [child for child in family(pid) if child != pid and b"services.embedded" in Path(f"/proc/{child}/cmdline").read_bytes()]
