"""Every dependency is bounded above: no installation takes a version that nobody has tried."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.paths import ROOT

UPPER = ("<", "<=", "==", "~=")
"""Operators of a version that is bounded above."""


def _of_project(path: Path) -> Iterator[str]:
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    yield from content["build-system"]["requires"]
    yield from content["project"]["dependencies"]
    for extra in content["project"].get("optional-dependencies", {}).values():
        yield from extra


def _of_list(path: Path) -> Iterator[str]:
    for line in path.read_text(encoding="utf-8").splitlines():
        if requirement := line.partition("#")[0].strip():
            yield requirement


REQUIREMENTS = [
    *_of_project(ROOT / "pyproject.toml"),
    *_of_project(ROOT / "clients" / "python" / "pyproject.toml"),
    *_of_list(ROOT / "deploy" / "triton" / "requirements.txt"),
]


def bounded(requirement: str) -> bool:
    """Whether a requirement allows no version above a known one."""
    return any(
        (found.operator in UPPER and not found.version.endswith("*")) or found.operator == "==" for found in Requirement(requirement).specifier
    )


@pytest.mark.parametrize("requirement", sorted(set(REQUIREMENTS)))
def test_every_dependency_is_bounded_above(requirement: str) -> None:
    assert bounded(requirement), f"give {requirement} an upper bound"


@pytest.mark.parametrize(
    ("requirement", "expected"),
    [("a", False), ("a>=1", False), ("a>1,!=2", False), ("a>=1,<2", True), ("a==1.0", True), ("a==1.*", True), ("a~=1.2", True), ("a[b]>=1", False)],
)
def test_what_is_bounded(requirement: str, expected: bool) -> None:
    assert bounded(requirement) is expected
