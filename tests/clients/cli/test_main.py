"""The commands of ``dl4all``: their order in the help, and the modules that the help imports."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any, cast

import pytest
import typer.main
from typer.testing import CliRunner

from clients.cli.main import app
from tests.paths import ROOT

EVERY_DAY = ["diagnose", "serve", "up", "slide", "cells", "focus", "enhance", "phantom", "call", "batch"]
NOUNS = ["data", "train", "release", "library", "study"]


def _panels() -> dict[str, list[str]]:
    """Title of each panel of the help, and the commands in it."""
    shown = CliRunner().invoke(app, ["--help"]).output
    panels = re.findall(r"╭─ ([\w, ]+) ─+╮\n(.*?)╰", shown, re.S)
    return {title: re.findall(r"^│ ([a-z][a-z-]*) ", lines, re.M) for title, lines in panels}


def test_the_help_shows_what_is_for_every_day_first() -> None:
    panels = _panels()
    assert panels["Every day"] == EVERY_DAY
    assert panels["Data, training, releases"][: len(NOUNS)] == NOUNS
    assert list(panels) == ["Options", "Every day", "Data, training, releases"]


def test_nothing_is_named_twice() -> None:
    commands = cast(Any, typer.main.get_command(app)).commands
    assert not {"pack", "patches", "compose", "import-allnet"} & set(commands)
    assert set(commands["data"].commands) == {"pack", "patches", "compose", "all-idb"}
    assert "import-allnet" in commands["release"].commands


@pytest.mark.processes
def test_the_command_line_imports_neither_training_nor_torch() -> None:
    code = "import sys; import clients.cli.main; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert not {"torch", "training", "scipy", "matplotlib", "onnxruntime"} & set(done.stdout.split())
