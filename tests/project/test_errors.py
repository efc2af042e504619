"""Every reason of an error stands in the code, in ``docs/errors.md`` and in the comments of the contract under one status."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

import grpc
import pytest

from services.common import errors
from tests.paths import ROOT

Pair = tuple[str, str]
STATUSES = frozenset(code.name for code in grpc.StatusCode)
CLASSES = {name: cls.code for name, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, errors.DomainError)}


def _reason(node: ast.expr) -> str:
    """A reason as written, with a star for each value that is filled in."""
    match node:
        case ast.Constant(value=str() as text):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in parts)
        case _:
            return "*"


def _raised() -> Iterator[Pair]:
    """Status and reason of every error that is made in the services; a status that the code takes over from elsewhere is a star."""
    for path in (ROOT / "services").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CLASSES and node.args:
                yield CLASSES[node.func.id], _reason(node.args[0])


def _documented() -> set[Pair]:
    """Rows of the tables of ``docs/errors.md``; a row without a status goes on with the one before."""
    found: set[Pair] = set()
    status = ""
    for line in (ROOT / "docs" / "errors.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) != 3 or cells[0].startswith(("-", "status")):
            continue
        status = re.match(r"[A-Z_]*", cells[0])[0] or status  # type: ignore[index]
        found |= {(status, reason) for reason in re.findall(r"`([A-Z0-9_]+)`", cells[1])}
    return found


def _promised() -> Iterator[tuple[str, str, str]]:
    """File, status and reason of each promise in the comments of the contract: ``NOT_FOUND (RELEASE_UNKNOWN)``."""
    for path in (ROOT / "protos").rglob("*.proto"):
        comments = " ".join(
            line.strip().removeprefix("//") for line in path.read_text(encoding="utf-8").splitlines() if line.strip().startswith("//")
        )
        for status, reasons in re.findall(r"\b([A-Z_]+) \(([A-Z0-9_*, \n]+)\)", comments):
            if status in STATUSES:
                for reason in re.split(r",\s*", reasons.strip()):
                    yield path.name, status, reason


@pytest.fixture(scope="module")
def documented() -> set[Pair]:
    return _documented()


def test_what_is_raised_is_documented(documented: set[Pair]) -> None:
    named = {pair for pair in _raised() if pair[1] != "*"}
    assert len(named) > 60
    assert not {pair for pair in named if not any(pair[0] == status and fnmatchcase(reason, pair[1]) for status, reason in documented)}


def test_what_is_documented_is_raised(documented: set[Pair]) -> None:
    raised = {pair for pair in _raised() if pair[1] != "*"}
    literals = {
        node.value
        for path in (ROOT / "services").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    unknown = {p for p in documented if not any(p[0] == status and fnmatchcase(p[1], reason) for status, reason in raised)}
    assert not {pair for pair in unknown if pair[1] not in literals or pair[1] in {reason for _, reason in raised}}


def test_what_the_contract_promises_is_documented(documented: set[Pair]) -> None:
    promised = list(_promised())
    assert len(promised) > 20
    assert not [p for p in promised if not any(p[1] == status and fnmatchcase(reason, p[2]) for status, reason in documented)]
