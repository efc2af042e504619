"""The import rules of the project hold, and find what breaks them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT


def _check(config: Path) -> tuple[int, str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--config", str(config)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def _changed(tmp_path: Path, before: str, after: str) -> Path:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert text.count(before) == 1
    changed = tmp_path / "pyproject.toml"
    changed.write_text(text.replace(before, after), encoding="utf-8")
    return changed


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('  "services.gateway.answers",\n', "", "services.gateway.answers is not allowed to import grpc"),
        ('"services.gateway.stubs"', '"services.gateway.gone"', "fit no module"),
        ('  "crops",\n  "recipes",', '  "recipes",\n  "crops",', "training.crops is not allowed to import training.recipes"),
    ],
    ids=["a module that is no exception any more", "an exception that is gone", "a floor that is higher than it was"],
)
def test_what_breaks_a_rule_is_said(tmp_path: Path, before: str, after: str, said: str) -> None:
    status, output = _check(_changed(tmp_path, before, after))
    assert status != 0
    assert said in " ".join(output.split())


def test_the_rules_hold() -> None:
    status, output = _check(ROOT / "pyproject.toml")
    assert status == 0, output
