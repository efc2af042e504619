"""The command line ``dl4all``."""

from __future__ import annotations

import typer

from clients.cli.commands.data import compose, import_allnet, pack, patches
from clients.cli.commands.diagnose import cells, diagnose, enhance, focus, systems
from clients.cli.commands.library import library_app
from clients.cli.commands.phantom import phantom
from clients.cli.commands.release import release_app
from clients.cli.commands.serve import call, serve, up
from clients.cli.commands.slide import slide
from clients.cli.commands.train import train

app = typer.Typer(
    name="dl4all",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="Pre-read blood smears for leukaemic blasts, with reasons. Assists a qualified reader; never signs out a result.",
)

for command in (diagnose, systems, slide, cells, focus, enhance, phantom, serve, up, call, train, pack, patches, compose):
    app.command()(command)
app.command("import-allnet")(import_allnet)
app.add_typer(release_app, name="release")
app.add_typer(library_app, name="library")


def main() -> None:
    """Entry point of the ``dl4all`` command."""
    app()


if __name__ == "__main__":
    main()
