"""Run one piece of work per image: progress on stderr, answers on stdout, failures apart from the others."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from clients.cli.forms import error_form
from dl4all_client import ServiceError

Answer = TypeVar("Answer")
IN_FLIGHT: Final = 4
console = Console(stderr=True)


@dataclass(frozen=True)
class Outcome(Generic[Answer]):
    """What became of one image: an answer or an error."""

    path: Path
    answer: Answer | None
    error: ServiceError | None


async def for_each_image(
    paths: Sequence[Path],
    work: Callable[[Path, bytes], Awaitable[Answer]],
    what: str,
    done: Callable[[Outcome[Answer]], None],
) -> int:
    """Do the work for every image, a few at once; ``done`` is called in the order of the paths, as early as possible.

    Returns:
        How many images failed.
    """
    slots = asyncio.Semaphore(IN_FLIGHT)

    async def one(path: Path) -> Outcome[Answer]:
        async with slots:
            try:
                return Outcome(path, await work(path, _read(path)), None)
            except ServiceError as error:
                return Outcome(path, None, error)
            except OSError as error:
                return Outcome(path, None, ServiceError("INTERNAL", "FILE_UNWRITABLE", f"A picture cannot be written: {error}."))

    failures = 0
    tasks = deque(asyncio.create_task(one(path)) for path in paths)
    try:
        with _progress() as progress:
            bar = progress.add_task(what, total=len(tasks))
            while tasks:
                outcome = await tasks[0]
                tasks.popleft()
                failures += outcome.error is not None
                done(outcome)
                progress.advance(bar)
    finally:
        for task in tasks:
            task.cancel()
    return failures


def asyncio_exit(work: Coroutine[Any, Any, int]) -> None:
    """Run the work; exit 1 if anything failed, 130 on Ctrl-C."""
    try:
        failures = asyncio.run(work)
    except ServiceError as error:
        say(f"failed: {error.message} ({error.reason})", "red")
        raise typer.Exit(1) from error
    except BrokenPipeError:  # the reader of the output has gone; Typer ends without a message
        raise
    except OSError as error:
        say(f"failed: {error}", "red")
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        raise typer.Exit(130) from error
    if failures:
        raise typer.Exit(1)


def say(text: str, style: str = "") -> None:
    """Print a text for people on standard error, without wrapping its lines.

    Args:
        text: the text; it is not read as markup.
        style: colour of the text, for rich.
    """
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def in_a_folder(path: Path | None) -> Path | None:
    """Refuse an output file whose folder does not exist, before any work is done for it."""
    if path is not None and (path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK)):
        raise typer.BadParameter(
            f"{path} cannot be written: {'it is a folder' if path.is_dir() else f'there is no folder {path.parent} to write to'}."
        )
    return path


def print_json(form: dict[str, Any]) -> None:
    """Print one JSON object on one line of standard output."""
    sys.stdout.write(json.dumps(form, ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()


def show_error(outcome: Outcome[Any], as_json: bool) -> None:
    """Show a failed image."""
    if outcome.error is None:
        return
    if as_json:
        print_json(error_form(str(outcome.path), outcome.error))
    else:
        say(f"failed {outcome.path}: {outcome.error.message} ({outcome.error.reason})", "red")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ServiceError("NOT_FOUND", "FILE_UNREADABLE", f"The file cannot be read: {error.strerror}.") from error


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
