"""Tests of how large the project is: it must travel to machines that train, and be cloned by laboratories."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.paths import ROOT

MIB = 2**20


@pytest.fixture(scope="module")
def tracked() -> dict[str, int]:
    """Bytes of every tracked file, by path."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    paths = [path for path in listed.split("\0") if path]
    return {path: (ROOT / path).stat().st_size for path in paths if (ROOT / path).is_file()}


def test_networks_and_releases_have_36_mib_at_most(tracked: dict[str, int]) -> None:
    sizes = {path: size for path, size in tracked.items() if Path(path).parts[0] in ("model_repository", "releases")}
    assert {Path(path).parts[0] for path in sizes} == {"model_repository", "releases"}
    assert sum(sizes.values()) <= 36 * MIB, "drop the oldest release of a system, or shorten its library (`release build --exemplars`)"


def test_the_checkout_has_45_mib_at_most(tracked: dict[str, int]) -> None:
    assert sum(tracked.values()) <= 45 * MIB
