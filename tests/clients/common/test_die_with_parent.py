"""A command that is bound to the life of the process that started it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clients.common import die_with_parent
from tests.running import eventually, runs

pytestmark = pytest.mark.processes
_PARENT = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, sys.argv[1], sys.argv[2] or str(os.getpid()), "sleep", "300"])
print(child.pid, flush=True)
sys.stdin.read()
"""


def _parent(bound_to: str = "") -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, "-c", _PARENT, str(die_with_parent.__file__), bound_to]
    parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    return parent, int(parent.stdout.readline())


def test_it_runs_while_its_parent_does_and_ends_with_it() -> None:
    parent, child = _parent()
    try:
        eventually(lambda: Path(f"/proc/{child}/comm").read_text().strip() == "sleep", what="the launcher became the command")
        parent.kill()
        parent.wait()
        eventually(lambda: not runs(child), what="the command ended with its parent")
    finally:
        if runs(child):
            os.kill(child, 9)


def test_a_parent_that_was_gone_before_the_launcher_looked_is_noticed() -> None:
    parent, child = _parent(bound_to="1")
    try:
        eventually(lambda: not runs(child), what="its parent is not the one that it was to be bound to")
    finally:
        parent.communicate()
