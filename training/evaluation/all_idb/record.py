"""The record of the table of ALL-IDB: figures as JSON, one entry per row, from which the table is printed again without any data."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from training.errors import ArrayFileError
from training.files.whole_files import write_json

Record = dict[str, Any]
_DIGITS = 5


def read_record(path: Path) -> Record:
    """What is recorded; empty where there is no file.

    Raises:
        ArrayFileError: the file is damaged.
    """
    if not path.exists():
        return {}
    try:
        record: Record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArrayFileError(f"{path} is not a record: {error}") from error
    if not isinstance(record, dict) or not all(isinstance(section, dict) for section in record.values()):
        raise ArrayFileError(f"{path} is not a record: it has no rows by section and name.")
    return record


def keep(path: Path, section: str, name: str, figures: Any) -> None:
    """Put the figures of one row into the record; all others stay.

    Args:
        path: the file.
        section: ``published``, ``honest``, ``frozen`` or ``baselines``.
        name: of the row.
        figures: a dataclass, or several by name.
    """
    record = read_record(path)
    record.setdefault(section, {})[name] = _plain(figures)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, record)


def _plain(value: Any) -> Any:
    """Numbers rounded, and null where a figure is not defined."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, float):
        return round(value, _DIGITS) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value
