"""Files that appear whole or not at all: what was there before stays until the new content is on the disk."""

from __future__ import annotations

import json
import os
from pathlib import Path

from services.common.processes import is_alive


def write_whole(path: Path, content: bytes) -> None:
    """Write a file; its folder is made. Processes that write the same file at once do not disturb each other: the last one stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: object) -> None:
    """Write JSON for people and programs, indented."""
    write_whole(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def _remove_leftovers(path: Path) -> None:
    """Remove what processes that were killed have left of this file."""
    for left in path.parent.glob(f".{path.name}.*.part"):
        owner = left.name.removeprefix(f".{path.name}.").removesuffix(".part")
        if owner.isdigit() and not is_alive(int(owner)):
            left.unlink(missing_ok=True)
