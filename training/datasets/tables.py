"""Tables that people give: one reader for all of them, whatever program wrote them."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from services.common.image_files import shown
from training.errors import DatasetError

_SEPARATORS: Final = (",", ";", "\t", "|")
_DECLARED: Final = re.compile(r"sep=(.)\r?\n?", re.IGNORECASE)
"""First line by which Excel is told the separator."""
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")
_WORKBOOKS: Final = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
_SHOWN: Final = 12


def read_rows(path: Path, columns: Iterable[str], optional: Iterable[str] = ()) -> list[dict[str, str]]:
    """Rows of a CSV file with a header, gzipped or not.

    Separators are commas, semicolons, tabs or bars, as the header shows. Spaces around names and values, empty lines and empty columns without a
    name do not count, nor do upper and lower case in the names of the columns that are asked for.

    Args:
        path: the file, UTF-8, or UTF-16 with its mark.
        columns: what must be there.
        optional: what may be there, and is to be known by this very name.

    Raises:
        DatasetError: the file is missing, is no such text, lacks a column, names one twice or has a row of another length.
    """
    if not path.exists():
        raise DatasetError(f"{shown(path)} is missing: is {shown(path.parent)} the folder of this data set?")
    needed = list(columns)
    try:
        text = _text(path)
        declared = _DECLARED.match(text)
        lines = _lines(text[declared.end() :] if declared else text, declared[1] if declared else None, needed)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{shown(path)} is not a readable table: {error}.") from error
    if not lines:
        raise DatasetError(f"{shown(path)} is empty; needed are the columns {', '.join(needed)}.")
    header = _named([name.strip() for name in lines[0][1]], [*needed, *optional])
    while header and not header[-1] and all(not line[len(header) - 1].strip() for _, line in lines[1:] if len(line) >= len(header)):
        header.pop()
    if missing := [name for name in needed if name not in header]:
        found = ", ".join(shown(name) for name in header[:_SHOWN]) or "none"
        raise DatasetError(f"{shown(path)} lacks the columns {missing}. Found: {found}. Needed: {', '.join(needed)}.")
    if twice := sorted({name for name in header if name and header.count(name) > 1}):
        raise DatasetError(f"{shown(path)} has two columns of the name {shown(twice[0])}; name them differently.")
    return _rows(path, header, lines[1:])


def _text(path: Path) -> str:
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    if content.startswith(_WORKBOOKS):
        raise csv.Error("it is a workbook or an archive, not text; save the sheet as CSV UTF-8")
    if content.startswith(_UTF_16):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise csv.Error(f"line {line} is not UTF-8; save the table as CSV UTF-8") from error


def _lines(text: str, separator: str | None, needed: Sequence[str]) -> list[tuple[int, list[str]]]:
    """Lines with their numbers, those without any value left out; separated so that most of the needed columns are found."""

    def split(by: str) -> list[tuple[int, list[str]]]:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=by, skipinitialspace=True)
        return [(reader.line_num, line) for line in reader if any(value.strip() for value in line)]

    if separator:
        return split(separator)
    head = next((line for line in text.splitlines() if line.strip()), "")
    wanted = {name.casefold() for name in needed}

    def hits(by: str) -> tuple[int, int]:
        names = next(csv.reader([head], delimiter=by, skipinitialspace=True), [])
        return len(wanted & {name.strip().casefold() for name in names}), len(names)

    return split(max(_SEPARATORS, key=hits))


def _named(header: Sequence[str], known: Sequence[str]) -> list[str]:
    """The header with known names as they are known; a name that is there as it is known stays alone."""
    by_folded = {name.casefold(): name for name in known if name not in header}
    return [by_folded.get(name.casefold(), name) for name in header]


def _rows(path: Path, header: Sequence[str], lines: Sequence[tuple[int, list[str]]]) -> list[dict[str, str]]:
    rows, broken = [], []
    for number, line in lines:
        values = [value.strip() for value in line]
        while len(values) > len(header) and not values[-1]:
            values.pop()
        if len(values) != len(header):
            broken.append(number)
        rows.append(dict(zip(header, values, strict=False)))
    if broken:
        raise DatasetError(f"{shown(path)}: rows {broken[:5]} do not have as many fields as the header, {len(header)}.")
    return rows
