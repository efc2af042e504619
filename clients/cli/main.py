"""The command line ``dl4all``."""

from __future__ import annotations

from typing import Any, Final

import typer
from typer.core import TyperGroup

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
_ORDER: Final = (*(command.__name__ for command in EVERYDAY), *NOUNS)
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
app.add_typer(data_app, name="data", rich_help_panel=_NOUN_PANEL)
app.command(rich_help_panel=_NOUN_PANEL)(train)
app.add_typer(release_app, name="release", rich_help_panel=_NOUN_PANEL)
app.add_typer(library_app, name="library", rich_help_panel=_NOUN_PANEL)
app.add_typer(study_app, name="study", rich_help_panel=_NOUN_PANEL)


def main() -> None:
    """Entry point of the ``dl4all`` command."""
    app()


if __name__ == "__main__":
    main()
