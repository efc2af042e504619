"""Tests mirror the tree: every module has a test file of its name, or it is said where it is tested."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path

import pytest

from tests.paths import ROOT

FOLDERS = ("services", "training", "clients/cli", "clients/python/dl4all_client", "deploy")
TABLE = ROOT / "tests" / "project" / "tested_elsewhere.toml"
TABLES = tomllib.loads(TABLE.read_text(encoding="utf-8"))
ELSEWHERE: dict[str, str] = {module: test for table in TABLES.values() for module, test in table.items()}


def _modules() -> list[str]:
    found = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    return sorted(str(path.relative_to(ROOT)) for path in found if path.name not in ("__init__.py", "__main__.py"))


def mirrored(module: str) -> Path:
    """The test file of a module."""
    path = Path(module.replace("clients/python/dl4all_client", "clients/python"))
    return ROOT / "tests" / path.parent / f"test_{path.name}"


def test_every_module_is_tested_under_its_name_or_it_is_said_where() -> None:
    missing = [module for module in _modules() if not mirrored(module).exists() and module not in ELSEWHERE]
    assert not missing, f"write {mirrored(missing[0]).relative_to(ROOT)}, or say in {TABLE.name} where {missing[0]} is tested"


def test_the_table_names_no_more_than_it_must() -> None:
    modules = set(_modules())
    assert not [module for module in ELSEWHERE if module not in modules], "no such module"
    assert not [module for module in ELSEWHERE if mirrored(module).exists()], "it has a test file of its own"


@pytest.mark.parametrize("test", sorted(set(ELSEWHERE.values())))
def test_what_the_table_names_is_a_test(test: str) -> None:
    assert (ROOT / test).is_file()
    assert "def test_" in (ROOT / test).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "program", sorted(p.stem for p in (ROOT / "training" / "evaluation").glob("*.py") if '__name__ == "__main__"' in p.read_text())
)
def test_every_program_of_evaluation_can_be_loaded(program: str) -> None:
    """Programs on real data, such as ``stress``, run by hand; that their imports hold is seen here."""
    assert callable(importlib.import_module(f"training.evaluation.{program}").main)
