"""Tests mirror the tree: every module has a test file of its name, or a table says where it is tested or why it is not."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import grimp
import pytest

from tests.paths import ROOT

FOLDERS = ("services", "training", "clients/batch", "clients/cli", "clients/common", "clients/python/dl4all_client", "deploy")
TABLE = ROOT / "tests" / "project" / "tested_elsewhere.toml"
TABLES: dict[str, dict[str, str]] = tomllib.loads(TABLE.read_text(encoding="utf-8"))
UNTESTED = TABLES.pop("untested")
ELSEWHERE = {module: test for table in TABLES.values() for module, test in table.items()}
SCRIPTS = re.compile(r"\b((?:services|training|clients)(?:\.\w+)+)")
"""Modules that a test runs as programs."""


def _modules() -> list[str]:
    found = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    return sorted(str(path.relative_to(ROOT)) for path in found if path.name not in ("__init__.py", "__main__.py"))


def _dotted(module: str) -> str:
    return module.removesuffix(".py").replace("clients/python/", "").replace("/", ".")


def mirrored(module: str) -> Path:
    """The test file of a module."""
    path = Path(module.replace("clients/python/dl4all_client", "clients/python"))
    return ROOT / "tests" / path.parent / f"test_{path.name}"


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("services", "training", "clients", "dl4all_client", cache_dir=None)


def _uses(test: Path, seen: set[Path] | None = None) -> set[str]:
    """Modules that a test file and the helpers that it imports name: by import, or as programs."""
    seen = set() if seen is None else seen
    if test in seen:
        return set()
    seen.add(test)
    text = test.read_text(encoding="utf-8")
    found = set(SCRIPTS.findall(text))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    helpers = [ROOT / f"{name.replace('.', '/')}.py" for name in found if name.startswith("tests.")]
    conftests = [folder / "conftest.py" for folder in test.parents if folder.is_relative_to(ROOT / "tests")]
    for helper in (*helpers, *conftests):
        if helper.is_file():
            found |= _uses(helper, seen)
    if 'f"services.{' in text or "SERVICES" in text:
        found |= {f"services.{path.parent.name}.__main__" for path in (ROOT / "services").glob("*/__main__.py")}
    return found


def test_every_module_is_tested_under_its_name_or_it_is_said_where() -> None:
    missing = [module for module in _modules() if not mirrored(module).exists() and module not in {**ELSEWHERE, **UNTESTED}]
    assert not missing, f"write {mirrored(missing[0]).relative_to(ROOT)}, or say in {TABLE.name} where {missing[0]} is tested"


def test_the_table_names_no_more_than_it_must() -> None:
    named = {**ELSEWHERE, **UNTESTED}
    assert not set(named) - set(_modules()), "no such module"
    assert not [module for module in named if mirrored(module).exists()], "it has a test file of its own"
    assert all(len(why.split()) > 4 for why in UNTESTED.values())


@pytest.mark.parametrize("module", sorted(module for module in ELSEWHERE if not module.startswith("deploy")))
def test_what_the_table_names_reaches_the_module(graph: grimp.ImportGraph, module: str) -> None:
    test = ROOT / ELSEWHERE[module]
    assert "def test_" in test.read_text(encoding="utf-8")
    used = _uses(test) & graph.modules
    dotted = _dotted(module)
    assert dotted in used or used & graph.find_downstream_modules(dotted), f"{ELSEWHERE[module]} does not reach it"
