"""Image files that a person names on the command line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp"})


def expand(paths: Sequence[Path]) -> list[Path]:
    """Files as named; folders as the images in them and below, sorted. What does not exist is kept, to be reported."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found.extend(sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()))
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def distinct_names(paths: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """A PNG in ``folder`` for every image, named like the image; images of one name get their number as well."""
    stems = Counter(path.stem for path in paths)
    return {path: folder / (f"{path.stem}.png" if stems[path.stem] == 1 else f"{path.stem}_{i:04d}.png") for i, path in enumerate(paths)}
