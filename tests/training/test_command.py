"""Programs of training tell what a user can put right in one line, and call themselves as users call them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT
from training.command import explained, program_parser
from training.errors import RecipeError

PROGRAMS = sorted(p for p in (ROOT / "training").rglob("*.py") if '__name__ == "__main__"' in p.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda p: p.stem)
def test_every_program_explains(path: Path) -> None:
    assert "@explained\ndef main(arguments: Sequence[str] | None = None) -> " in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("error", "status"),
    [(RecipeError("No such recipe."), "failed: No such recipe."), (FileNotFoundError("a.pack"), "failed: a.pack"), (KeyboardInterrupt(), 130)],
    ids=lambda p: type(p).__name__,
)
def test_what_a_user_can_put_right_ends_the_program(error: BaseException, status: str | int) -> None:
    @explained
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == status


def test_a_mistake_of_ours_is_not_hidden() -> None:
    @explained
    def main() -> None:
        raise KeyError("a")

    with pytest.raises(KeyError):
        main()


def test_the_status_of_a_program_is_kept() -> None:
    assert explained(lambda arguments: len(arguments))(["a", "b"]) == 2


def test_a_program_has_the_name_that_users_type(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        program_parser("comparison", "Compare.\n\n    as it is written").parse_args(["--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert shown.startswith("usage: dl4all study comparison [-h]\n")
    assert "\n    as it is written\n" in shown


@pytest.mark.processes
@pytest.mark.parametrize("arguments", [["--release", "nonsense", "--data", "."], ["--data", "/nowhere"]])
def test_a_wrong_path_or_release_is_one_line(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "training.evaluation.reassurance", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("failed: ")
    assert done.stderr.count("\n") == 1
