"""``dl4all study``: every program of training has a name, gets its arguments as they were given, and reports a mistake in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from clients.cli.commands.study import PROGRAMS, Program
from clients.cli.main import app
from tests.paths import ROOT
from tests.running import eventually

MISSING = "import sys; sys.modules['torch'] = sys.modules['matplotlib'] = None; from clients.cli.main import main; main()"


def _scanned() -> set[str]:
    """Modules below ``training`` that can be run as programs."""
    found = (p for p in (ROOT / "training").rglob("*.py") if '__name__ == "__main__"' in p.read_text(encoding="utf-8"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in found}


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The arguments that a stand-in for `comparison` was called with; it says 3."""
    calls: list[list[str]] = []

    def main(arguments: list[str]) -> int:
        calls.append(arguments)
        return 3

    program = ModuleType("training.evaluation.comparison")
    vars(program)["main"] = main
    monkeypatch.setitem(sys.modules, program.__name__, program)
    return calls


def test_the_table_holds_every_program_of_training() -> None:
    assert {p.module for p in PROGRAMS} == _scanned()
    assert len({p.module for p in PROGRAMS}) == len({p.name for p in PROGRAMS}) == len(PROGRAMS)
    assert all(p.sentence.endswith(".") for p in PROGRAMS)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.name)
def test_every_program_shows_its_own_help_under_its_name(program: Program) -> None:
    shown = CliRunner().invoke(app, ["study", program.name, "--help"], prog_name="dl4all")
    assert shown.exit_code == 0
    assert shown.output.startswith(f"usage: dl4all study {program.name} [-h]")
    assert f"dl4all study {program.name}" in shown.output.partition("\n\n")[2], "its description shows how it is called"


@pytest.mark.parametrize("arguments", [["study"], ["study", "--help"]], ids=" ".join)
def test_without_a_name_all_are_listed(arguments: list[str]) -> None:
    shown = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"}).output
    assert [name for name in (line[1:].split()[:1] for line in shown.splitlines() if line.startswith("│")) if name != ["--help"]] == [
        [p.name] for p in PROGRAMS
    ]
    assert all(p.sentence.replace("`", "") in shown for p in PROGRAMS)


def test_arguments_are_passed_as_they_are_and_the_status_is_that_of_the_program(given: list[list[str]]) -> None:
    arguments = ["--data", "a b", "-x", "--curves=c.svg", "NAME=1,2", "--help", "--", "--not-an-option"]
    assert CliRunner().invoke(app, ["study", "comparison", *arguments]).exit_code == 3
    assert given == [arguments]


def test_a_name_that_is_not_there_is_told() -> None:
    shown = CliRunner().invoke(app, ["study", "comparisn"])
    assert shown.exit_code == 2
    assert "comparison" in shown.output


@pytest.mark.processes
def test_a_mistake_is_one_line_and_exit_1() -> None:
    command = [sys.executable, "-m", "clients.cli.main", "study", "comparison", "--data", "/nowhere", "one=a", "two=b"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("failed: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.processes
def test_without_the_extra_the_message_says_how_to_get_it() -> None:
    command = [sys.executable, "-c", MISSING, "study", "comparison", "one=a"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "is not installed; this command needs the extra `train` of the server's wheel" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.processes
def test_control_c_ends_a_study_without_a_traceback(tmp_path: Path) -> None:
    """The labels are a pipe: once the program has opened it, it waits there for a line."""
    labels = tmp_path / "labels.csv"
    os.mkfifo(labels)
    command = [sys.executable, "-m", "clients.cli.main", "study", "patient-split", str(labels)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as child:
        opened: list[int] = []
        eventually(lambda: _opens(labels, opened), 120, "the program reads")
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=60)
    os.close(opened[0])
    assert (child.returncode, err) == (130, "")


def _opens(pipe: Path, opened: list[int]) -> bool:
    """Whether the pipe has a reader; it is held open from then on."""
    try:
        opened.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True
