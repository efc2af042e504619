"""Image files that a person names on the command line."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path

import typer

from clients.cli.running import say
from services.common.image_files import ImageSearch, passed_over_words, shown


def expand(paths: Sequence[Path]) -> list[Path]:
    """Files as named; folders as the images in them and below, by name. Says once what was passed over.

    What cannot be read is kept, to be reported: a path that does not exist, a folder without images.
    """
    search = ImageSearch()
    for path in paths:
        if not os.path.isdir(path):
            search.add_file(path)
        elif not search.look_through(path):
            search.images.append(path)
    if search.passed_over:
        say(f"passed over: {passed_over_words(search.passed_over)}", "yellow")
    return list(dict.fromkeys(search.images))


def refuse_overwriting(written: Iterable[Path], images: Sequence[Path]) -> None:
    """Refuse to write over an image that is read, before any work is done.

    Raises:
        typer.BadParameter: a file that is to be written is one of the images.
    """
    read = {os.path.realpath(path) for path in images}
    for path in written:
        if os.path.realpath(path) in read:
            raise typer.BadParameter(f"{shown(path)} would be written over the image of this name; name another place for what is written.")


def distinct_names(paths: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """A PNG in ``folder`` for every image, named like the image; images of one name get a number as well.

    Names that differ only by case, or by how accents are written, are one name on some systems.
    """
    stems = Counter(_key(path.stem) for path in paths)
    taken = {stem for stem, times in stems.items() if times == 1}
    names: dict[Path, Path] = {}
    for path in paths:
        stem = path.stem
        if stems[_key(stem)] > 1:
            stem = next(name for i in count() if _key(name := f"{path.stem}_{i:04d}") not in taken)
            taken.add(_key(stem))
        names[path] = folder / f"{stem}.png"
    return names


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
