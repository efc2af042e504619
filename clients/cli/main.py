"""The command line ``dl4all``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Final, get_args, get_type_hints

import typer
from typer.core import TyperGroup
from typer.models import OptionInfo, ParameterInfo

from clients.cli.commands.batch import batch_app
from clients.cli.commands.data import data_app
from clients.cli.commands.diagnose import cells, diagnose, enhance, focus
from clients.cli.commands.library import library_app
from clients.cli.commands.phantom import phantom
from clients.cli.commands.release import release_app
from clients.cli.commands.serve import call, serve, up
from clients.cli.commands.slide import slide
from clients.cli.commands.study import study_app
from clients.cli.commands.train import train

EVERYDAY: Final = (diagnose, serve, up, slide, cells, focus, enhance, phantom, call)
NOUNS: Final = ("data", "train", "release", "library", "study")
_ORDER: Final = (*(command.__name__ for command in EVERYDAY), "batch", *NOUNS)
_PANEL, _NOUN_PANEL = "Every day", "Data, training, releases"


class _InOrder(TyperGroup):
    """Shows commands and groups in the order of this file; Typer alone shows all groups last."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of the help."""
        return sorted(super().list_commands(ctx), key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))


app = typer.Typer(
    name="dl4all",
    cls=_InOrder,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="Look for leukaemic blasts in images of blood smears, and say why. It assists a qualified reader and never signs out a result.",
)

for command in EVERYDAY:
    app.command(rich_help_panel=_PANEL)(command)
app.add_typer(batch_app, name="batch", rich_help_panel=_PANEL)
app.add_typer(data_app, name="data", rich_help_panel=_NOUN_PANEL)
app.command(rich_help_panel=_NOUN_PANEL)(train)
app.add_typer(release_app, name="release", rich_help_panel=_NOUN_PANEL)
app.add_typer(library_app, name="library", rich_help_panel=_NOUN_PANEL)
app.add_typer(study_app, name="study", rich_help_panel=_NOUN_PANEL)


def given_path(text: str) -> Path:
    """A path of the command line. An empty one, such as a variable of a script that is not set, would mean the folder where the command runs.

    Raises:
        typer.BadParameter: it is empty.
    """
    if not text:
        raise typer.BadParameter("the path is empty; write . for the folder where you are.")
    return Path(text)


def _take_no_empty_paths(command: Callable[..., Any]) -> None:
    """Let every path of a command be read by ``given_path``."""
    hints = get_type_hints(command, include_extras=True)
    for hint in hints.values():
        kind, *extras = get_args(hint) or (None,)
        for info in extras:
            if isinstance(info, ParameterInfo) and Path in (kind, *get_args(kind), *(inner for of in get_args(kind) for inner in get_args(of))):
                info.parser = given_path
                if isinstance(info, OptionInfo):
                    info.metavar = info.metavar or "PATH"
    command.__annotations__ = hints


for _typer in (app, batch_app, data_app, release_app, library_app):
    for _command in _typer.registered_commands:
        if _command.callback is not None:
            _take_no_empty_paths(_command.callback)


def main() -> None:
    """Entry point of the ``dl4all`` command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            with suppress(ValueError):  # it is read or written already
                stream.reconfigure(errors="replace" if stream is sys.stdout else "backslashreplace")
    app()


if __name__ == "__main__":
    main()
