"""Run one piece of work per image: progress on stderr, answers on stdout, failures apart from the others."""

from __future__ import annotations

import asyncio
import json
import os
import re
import stat
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
from services.common.image_files import CONTROLS, IMAGE_SUFFIXES, SURROGATES, ImageSearch, passed_over_words, shown, shown_text

Answer = TypeVar("Answer")
IN_FLIGHT: Final = 4
_NOT_ASCII: Final = re.compile(r"[^\x00-\x7f]")
_LONGEST_NAME: Final = 230
"""Bytes of the name of an output file; while it is written, it has a longer name."""
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
        text: the text; it is not read as markup, and nothing in it steers the terminal.
        style: colour of the text, for rich.
    """
    console.print(shown_text(text), style=style, markup=False, highlight=False, soft_wrap=True)


def in_a_folder(path: Path | None) -> Path | None:
    """Refuse an output file that cannot be written, before any work is done for it."""
    if path is not None and (reason := _unwritable(path)):
        raise typer.BadParameter(f"{shown(path)} cannot be written: {reason}.")
    return path


def _unwritable(path: Path) -> str:
    if os.path.isdir(path):
        return "it is a folder"
    if not os.path.isdir(path.parent):
        return f"there is no folder {shown(path.parent)} to write to"
    if len(os.fsencode(path.name)) > _LONGEST_NAME:
        return "its name is too long"
    written_whole = os.path.isfile(path) or not os.path.exists(path)
    return "" if os.access(path.parent if written_whole else path, os.W_OK) else "you may not write there"


def print_json(form: dict[str, Any]) -> None:
    """Print one JSON object on one line of standard output, whatever its encoding; bytes of a name that are no text are replaced."""
    text = SURROGATES.sub("\ufffd", json.dumps(form, ensure_ascii=False, allow_nan=False))
    is_utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    escaped = (CONTROLS if is_utf8 else _NOT_ASCII).sub(lambda found: json.dumps(found[0])[1:-1], text)
    sys.stdout.write(escaped + "\n")
    sys.stdout.flush()


def show_error(outcome: Outcome[Any], as_json: bool) -> None:
    """Show a failed image."""
    if outcome.error is None:
        return
    if as_json:
        print_json(error_form(str(outcome.path), outcome.error))
    else:
        say(f"failed {shown(outcome.path)}: {outcome.error.message} ({outcome.error.reason})", "red")


def check_readable(path: Path) -> None:
    """Refuse what is no file that can be read.

    Raises:
        ServiceError: it is missing, a folder without images, a pipe or a device, or this user may not read it.
    """
    if os.path.isdir(path):
        raise _no_images(path)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise _unreadable(error.strerror) from error
    if not stat.S_ISREG(mode):
        raise _unreadable("it is a pipe or a device; write the image into a file first")
    if not os.access(path, os.R_OK):
        raise _unreadable("you may not read it")


def _unreadable(reason: str | None) -> ServiceError:
    return ServiceError("NOT_FOUND", "FILE_UNREADABLE", f"The file cannot be read: {reason}.")


def _no_images(folder: Path) -> ServiceError:
    try:
        os.listdir(folder)
    except OSError as error:
        return ServiceError("NOT_FOUND", "FILE_UNREADABLE", f"The folder cannot be read: {error.strerror}.")
    search = ImageSearch()
    search.look_through(folder)
    there = passed_over_words(search.passed_over)
    read = f"Files that end in {', '.join(IMAGE_SUFFIXES)} are read"
    return ServiceError(
        "NOT_FOUND", "NO_IMAGES", f"There is no image in this folder or below. {read}; {f'there are {there}' if there else 'it is empty'}."
    )


def _read(path: Path) -> bytes:
    check_readable(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(error.strerror) from error


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
