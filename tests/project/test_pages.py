"""Every page of the project: links lead somewhere, and the commands of `dl4all` that it shows exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import pytest
import typer.main

from clients.cli.main import app
from tests.paths import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(page for folder in ("docs", "deploy", "clients", "protos") for page in (ROOT / folder).rglob("*.md"))])
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
COMMAND = re.compile(r"(?:^|`|/|\s)dl4all ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?", re.M)


def _anchors(page: Path) -> set[str]:
    """Anchors of headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S), re.M)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in plain}


def _code(text: str) -> str:
    """Shell blocks and words in code of a page."""
    return "\n".join(block or words for block, words in re.findall(r"```sh\n(.*?)```|`([^`\n]+)`", text, re.S))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        if path.startswith(("http://", "https://")):
            continue
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert not anchor or anchor in _anchors(linked), target


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_that_are_shown_exist(page: Path) -> None:
    commands = cast(Any, typer.main.get_command(app)).commands
    for first, second in COMMAND.findall(_code(page.read_text(encoding="utf-8"))):
        assert first in commands, f"dl4all {first}"
        below = getattr(commands[first], "commands", {})
        assert not (below and second) or second in below, f"dl4all {first} {second}"
