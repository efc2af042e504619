"""Processes of this machine that run shards."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import pytest

from clients.batch.engines import local
from clients.batch.engines.local import LocalEngine
from clients.batch.errors import BatchError, GatewayNotReadyError
from clients.batch.worker import Work
from tests.clients.batch.making import planned
from tests.running import runs

pytestmark = pytest.mark.processes


def programs(monkeypatch: pytest.MonkeyPatch, *scripts: str) -> list[subprocess.Popen[bytes]]:
    """Let the workers be these shell scripts, one after the other; the last one again and again."""
    started: list[subprocess.Popen[bytes]] = []

    def start(work: Work, first: int) -> local._Process:
        said = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        script = scripts[min(len(started), len(scripts) - 1)]
        started.append(subprocess.Popen(["sh", "-c", script], stderr=said, start_new_session=True))
        return local._Process(started[-1], said)

    monkeypatch.setattr(local, "_start", start)
    monkeypatch.setattr(local, "_LOOK_SECONDS", 0.01)
    return started


def run(tmp_path: Path, workers: int = 1) -> None:
    _, plan = planned(tmp_path, 8)
    LocalEngine(workers).run(plan, Work(str(tmp_path)), lambda: None)


def test_it_ends_when_all_workers_have_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(programs(monkeypatch, "exit 0")) == 0
    started = programs(monkeypatch, "exit 0")
    run(tmp_path, workers=5)
    assert len(started) == 2, "there are two shards"


def test_a_worker_that_is_killed_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = programs(monkeypatch, "kill -9 $$", "kill -9 $$", "exit 0")
    run(tmp_path)
    assert len(started) == 3


def test_workers_that_end_again_and_again_without_progress_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = programs(monkeypatch, "echo no memory >&2; exit 9")
    with pytest.raises(BatchError, match="status 9: no memory"):
        run(tmp_path)
    assert len(started) == 1 + local._RESTARTS


@pytest.mark.parametrize(("status", "kind"), [(75, GatewayNotReadyError), (1, BatchError)])
def test_what_a_worker_says_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, kind: type[Exception]) -> None:
    started = programs(monkeypatch, f"echo the reason >&2; exit {status}", "sleep 100")
    with pytest.raises(kind, match="the reason"):
        run(tmp_path, workers=2)
    assert not any(runs(one.pid) for one in started), "the others are ended"


def test_ctrl_c_ends_the_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = programs(monkeypatch, "sleep 100")
    _, plan = planned(tmp_path, 8)
    looks = iter(range(3))

    def interrupt() -> None:
        if next(looks, None) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LocalEngine(2).run(plan, Work(str(tmp_path)), interrupt)
    assert len(started) == 2
    assert not any(runs(one.pid) for one in started)
