"""Arguments and options that several commands share, and the form of their errors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from clients.cli.running import say
from services.common.home import MODEL_REPOSITORY, home
from services.common.home import RELEASES as RELEASES_FOLDER


class Kind(StrEnum):
    """What an image shows."""

    AUTO = "auto"
    CELL = "cell"
    FIELD = "field"


Images = Annotated[
    list[Path], typer.Argument(metavar="IMAGE|DIR...", help="Image files (JPEG, PNG, TIFF, BMP), or folders of them.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object per image on standard output, nothing else there.")]
Address = Annotated[str | None, typer.Option(help="HOST:PORT of a running gateway; without it the services run in this process.", show_default=False)]
ReleaseOption = Annotated[str, typer.Option("--release", help="Release id or system; see `dl4all release list`. Default: the default release.")]
KindOption = Annotated[Kind, typer.Option(help="A crop around one cell, a field of many, or let the service tell.")]

Data = Annotated[
    list[Path],
    typer.Option(help="Folder of a data set, folder that holds several, or a .pack; may be given several times.", show_default=False),
]
Device = Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu or cuda.")]
Releases = Annotated[Path, typer.Option(help="Folder of releases.", envvar="DL4ALL_RELEASES")]
Models = Annotated[Path, typer.Option(help="Folder of models.", envvar="DL4ALL_MODEL_REPOSITORY")]
RELEASES: Final = home() / RELEASES_FOLDER
MODELS: Final = home() / MODEL_REPOSITORY
BUILD: Final = Path("build")
"""Folder of the runs and packs of training."""


@contextmanager
def explained() -> Iterator[None]:
    """Turn an error that a user can put right into one line and exit status 1, and an interruption into 130."""
    from services.common.errors import DomainError

    caught: tuple[Any, ...] = (DomainError, OSError)
    try:
        try:
            from training.errors import TrainingError

            caught = (*caught, TrainingError)
        except ImportError:
            pass
        yield
    except ImportError as error:
        say(f"failed: {error.name} is not installed; this command needs the extra `train` of the server's wheel (docs/install.md)", "red")
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        raise typer.Exit(130) from error
    except BrokenPipeError:  # the reader of the output has gone; Typer ends without a message
        raise
    except caught as error:
        interrupted = type(error).__name__ == "InterruptedTrainingError"
        process = f" (process {os.environ['RANK']})" if "RANK" in os.environ else ""
        say(str(error) if interrupted else f"failed{process}: {error}", "yellow" if interrupted else "red")
        raise typer.Exit(130 if interrupted else 1) from error
