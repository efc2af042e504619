"""Command lines of the evaluation tell what a user can put right in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

pytestmark = pytest.mark.processes

EVALUATION = ROOT / "training" / "evaluation"


@pytest.mark.parametrize("path", sorted(p for p in EVALUATION.glob("*.py") if "def main()" in p.read_text(encoding="utf-8")), ids=lambda p: p.stem)
def test_every_command_explains(path: Path) -> None:
    assert "@explained\ndef main() -> None:" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("arguments", [["--release", "nonsense", "--data", "."], ["--data", "/nowhere"]])
def test_a_wrong_path_or_release_is_one_line(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "training.evaluation.reassurance", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("failed: ")
    assert done.stderr.count("\n") == 1
