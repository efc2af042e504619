"""The manifest of a batch: one line for each image. It is read from a folder, a glob, or a file in CSV or Parquet."""

from __future__ import annotations

import hashlib
import json
import math
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from pyarrow import csv, parquet

from clients.batch.errors import BatchError
from clients.batch.images import file_system, is_remote, local_path, location_of
from services.common.image_files import IMAGE_SUFFIXES, ImageSearch, is_left_over, passed_over_words

SCHEMA: Final = pa.schema(
    [
        pa.field("line", pa.int64(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("specimen", pa.string(), nullable=False),
        pa.field("release", pa.string(), nullable=False),
        pa.field("microns_per_pixel", pa.float64(), nullable=False),
    ]
)
"""Columns of a manifest as a batch keeps it."""
_LOCATION: Final = ("path", "uri")
_OPTIONAL: Final = ("specimen", "release", "microns_per_pixel")
_MANIFESTS: Final = (".csv", ".parquet")
_MAGIC: Final = frozenset("*?[")
_LONGEST_IDENTIFIER: Final = 128


@dataclass(frozen=True)
class Line:
    """A line of a manifest.

    Attributes:
        number: from 0.
        uri: path or URI of the image.
        specimen: pseudonym of the specimen; empty where there is none.
        release: release id or system; empty for the release of the batch.
        microns_per_pixel: 0.01..10; 0 where unknown.
    """

    number: int
    uri: str
    specimen: str = ""
    release: str = ""
    microns_per_pixel: float = 0.0


@dataclass(frozen=True)
class Found:
    """What a source holds.

    Attributes:
        lines: the images.
        passed_over: what was passed over in a folder, in words; empty where there is nothing.
    """

    lines: tuple[Line, ...]
    passed_over: str = ""


def read_source(source: str) -> Found:
    """The images of a source.

    Args:
        source: a folder; a glob such as ``archive/**/*.png``; or a manifest in CSV or Parquet with the columns ``path`` (or ``uri``),
            ``specimen``, ``release`` and ``microns_per_pixel``, of which only the first is needed. All may be URIs that fsspec knows.
            Paths in a manifest are relative to its folder.

    Raises:
        BatchError: there is no image, or the manifest cannot be read; the message names the line.
    """
    if source.lower().endswith(_MANIFESTS):
        found = Found(tuple(_manifest_lines(source)))
    elif _MAGIC & set(source):
        found = Found(_numbered(_globbed(source)))
    else:
        found = _folder(source)
    if not found.lines:
        there = f" There are {found.passed_over}." if found.passed_over else ""
        raise BatchError(f"{source} holds no image. Files that end in {', '.join(IMAGE_SUFFIXES)} are read.{there}")
    return found


def as_table(lines: Sequence[Line]) -> pa.Table:
    """Lines as a table of ``SCHEMA``."""
    columns = [[getattr(line, name) for line in lines] for name in ("number", *SCHEMA.names[1:])]
    return pa.table(dict(zip(SCHEMA.names, columns, strict=True)), schema=SCHEMA)


def as_lines(table: pa.Table) -> list[Line]:
    """Lines of a table of ``SCHEMA``."""
    return [Line(*row.values()) for row in table.select(SCHEMA.names).to_pylist()]


def digest(lines: Sequence[Line]) -> str:
    """SHA-256 of the content of a manifest; two manifests with the same lines in the same order have the same."""
    content = hashlib.sha256()
    for line in lines:
        content.update(json.dumps([line.uri, line.specimen, line.release, line.microns_per_pixel]).encode() + b"\n")
    return content.hexdigest()


def _numbered(locations: Sequence[str]) -> tuple[Line, ...]:
    return tuple(Line(number, location) for number, location in enumerate(locations))


def _folder(source: str) -> Found:
    if is_remote(source):
        system, path = file_system(source)
        names = sorted(name for name in system.find(path) if _is_image(name))
        return Found(_numbered([system.unstrip_protocol(name) for name in names]))
    folder = local_path(source)
    if not folder.is_dir():
        raise BatchError(f"{source} is no folder, no glob and no manifest ({', '.join(_MANIFESTS)}).")
    search = ImageSearch()
    search.look_through(folder)
    return Found(_numbered([location_of(path) for path in search.images]), passed_over_words(search.passed_over))


def _globbed(source: str) -> list[str]:
    if not is_remote(source):
        return [location_of(path) for name in sorted(glob(str(local_path(source)), recursive=True)) if (path := Path(name)).is_file()]
    system, pattern = file_system(source)
    return [system.unstrip_protocol(name) for name in sorted(system.glob(pattern)) if _is_image(name)]


def _is_image(name: str) -> bool:
    base = posixpath.basename(name)
    return not is_left_over(base) and posixpath.splitext(base)[1].lower() in IMAGE_SUFFIXES


def _manifest_lines(source: str) -> Iterator[Line]:
    table = _read_manifest(source)
    location = next((name for name in _LOCATION if name in table.column_names), None)
    if location is None:
        raise BatchError(f"{source} has no column path or uri; its columns are {', '.join(table.column_names) or 'none'}.")
    folder: str | Path = posixpath.dirname(source) if is_remote(source) else local_path(source).absolute().parent
    columns = [table[name].to_pylist() if name in table.column_names else [None] * len(table) for name in (location, *_OPTIONAL)]
    for number, values in enumerate(zip(*columns, strict=True)):
        try:
            yield _line(number, folder, *values)
        except ValueError as error:
            raise BatchError(f"{source}, image {number + 1}: {error}.") from error


def _line(number: int, folder: str | Path, location: Any, specimen: Any, release: Any, microns: Any) -> Line:
    """A checked line.

    Raises:
        ValueError: a value is out of range.
    """
    if not location:
        raise ValueError("the path is empty")
    scale = float(microns or 0.0)
    if scale and not (math.isfinite(scale) and 0.01 <= scale <= 10.0):
        raise ValueError(f"microns_per_pixel must lie in 0.01..10, or be 0 or empty where it is unknown; it is {microns}")
    return Line(number, _resolved(str(location), folder), _identifier("specimen", specimen), _identifier("release", release), scale)


def _identifier(name: str, value: Any) -> str:
    text = "" if value is None else str(value)
    if len(text) > _LONGEST_IDENTIFIER or not text.isascii() or not (text.isprintable()):
        raise ValueError(f"{name} must have at most {_LONGEST_IDENTIFIER} printable ASCII characters")
    return text


def _resolved(location: str, folder: str | Path) -> str:
    if "://" in location:
        return location
    if isinstance(folder, Path):
        return str(folder / location)
    return location if location.startswith("/") else f"{folder}/{location}"


def _read_manifest(source: str) -> pa.Table:
    try:
        system, path = file_system(source if is_remote(source) else str(local_path(source).absolute()))
        with system.open(path, "rb") as file:
            if source.lower().endswith(".parquet"):
                return parquet.read_table(file)
            return _read_csv(file)
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise BatchError(f"{source} cannot be read: {error}. A CSV manifest is UTF-8 text with a line of column names.") from error


def _read_csv(file: Any) -> pa.Table:
    """Every value as text: a specimen 0012 is not the number 12."""
    content = file.read()
    header = content.split(b"\n", 1)[0].decode("utf-8-sig")
    delimiter = ";" if ";" in header and "," not in header else ","
    names = [name.strip().strip('"') for name in header.strip().split(delimiter)]
    converting = csv.ConvertOptions(column_types={name: pa.string() for name in (*_LOCATION, *_OPTIONAL)}, strings_can_be_null=False)
    reading = csv.ReadOptions(column_names=names, skip_rows=1)
    parsing = csv.ParseOptions(delimiter=delimiter)
    return csv.read_csv(pa.BufferReader(content), read_options=reading, parse_options=parsing, convert_options=converting)
