"""Programs of Debian packages that a test needs: missing ones skip it visibly, except in CI, where they must be there."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.paths import ROOT

LIST = ROOT / "deploy" / "ci" / "debian-packages.txt"


def listed_packages() -> list[str]:
    """Packages that CI installs."""
    lines = (line.partition("#")[0].strip() for line in LIST.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def needed_program(program: str, package: str) -> str:
    """Path of a program; skips the test where it is missing, and fails it in CI."""
    assert package in listed_packages(), f"{package} is not in {LIST.relative_to(ROOT)}"
    path = shutil.which(program)
    if path is None:
        message = f"{program} is missing: apt-get install {package}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path
