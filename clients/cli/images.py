"""Image files that a person names on the command line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from services.common.image_files import IMAGE_SUFFIXES


def expand(paths: Sequence[Path]) -> list[Path]:
    """Files as named; folders as the images in them and below, sorted. A path that does not exist is kept, to be reported."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found.extend(sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()))
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def distinct_names(paths: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """A PNG in ``folder`` for every image, named like the image; images of one name get a number as well."""
    stems = Counter(path.stem for path in paths)
    taken = {stem for stem, times in stems.items() if times == 1}
    names: dict[Path, Path] = {}
    for path in paths:
        stem = path.stem
        if stems[stem] > 1:
            stem = next(name for i in count() if (name := f"{path.stem}_{i:04d}") not in taken)
            taken.add(stem)
        names[path] = folder / f"{stem}.png"
    return names
