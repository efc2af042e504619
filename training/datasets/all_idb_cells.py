"""Cut cells out of the fields of ALL-IDB1: windows around the experts' points, and the crops of ALL-IDB2 in their official layout."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from training.datasets.all_idb import ALL_IDB2, SOURCE_FIELDS, read_all_idb2
from training.datasets.all_idb_fields import (
    CROPS,
    LYMPHOBLAST,
    NUCLEATED,
    SMUDGED,
    UNKNOWN,
    CellClass,
    Field,
    Point,
    SourceCrop,
    read_crops,
    read_fields,
    read_points,
)
from training.datasets.dataset import Dataset, GroupKind, ImageKind, LabelledImage, existing
from training.datasets.tables import read_rows
from training.errors import DatasetError
from training.files.new_folders import new_folder

Bytes = NDArray[np.uint8]
ALL_IDB_CELLS: Final = "all_idb_cells"
CELLS_TABLE: Final = "all_idb_cells.csv"
WINDOW: Final = 257
"""Side of a window in px, that of the crops of ALL-IDB2."""
COLUMNS: Final = ("path", "kind", "is_blast", "field", "block", "fold")
_LABELS: Final[Mapping[CellClass, str]] = {CellClass.BLAST: "1", CellClass.NORMAL: "0", CellClass.UNKNOWN: "", CellClass.SMUDGED: ""}
_READ_LABELS: Final[Mapping[str, int | None]] = {"1": 1, "0": 0, "": None}


def read_all_idb_cells(root: Path) -> Dataset:
    """Read the windows that ``write_cells`` cut; grouped by block, folds as in ``Field.fold``.

    Unknown and smudged cells are neither class; smudged ones are a class of their own.

    Raises:
        DatasetError: the table or a window is missing, or a label makes no sense.
    """
    images = []
    for row in read_rows(root / CELLS_TABLE, COLUMNS):
        if row["is_blast"] not in _READ_LABELS:
            raise DatasetError(f"{root / CELLS_TABLE}: is_blast of {row['path']} is 1, 0 or empty, not {row['is_blast']!r}.")
        path, label = existing(root / row["path"], CELLS_TABLE), _READ_LABELS[row["is_blast"]]
        images.append(LabelledImage(path, ALL_IDB_CELLS, row["path"], (row["kind"],), row["block"], fold=row["fold"], is_blast=label))
    kinds = (LYMPHOBLAST, *sorted(NUCLEATED), *sorted(UNKNOWN), SMUDGED)
    notes = (
        "patients are not published, and few: a block is an imaging session of the Olympus, or a run of fields of one session of the Canon",
        "the camera tells much of the class: no Olympus field is of a healthy person",
        "kinds of cells that are no lymphoblasts were told by eye, not by an expert",
    )
    return Dataset(ALL_IDB_CELLS, ImageKind.CELL, kinds, GroupKind.BLOCK, tuple(images), notes=notes)


def write_cells(root: Path, out: Path) -> Dataset:
    """Cut a window around every nucleated cell of the fields in ``root``; nothing is left behind if that fails.

    Left out are points that are no cell, copies of fields, and lymphoblasts near the border, since a normal cell there would be of no class.

    Args:
        root: see ``training.datasets.all_idb_fields``.
        out: new folder.

    Raises:
        DatasetError: the folder exists, or images or tables are missing or broken.
    """
    fields, points = read_fields(root), read_points(root)
    with new_folder(out) as folder:
        (folder / "cells").mkdir()
        rows: list[tuple[str, ...]] = []
        for field in track([f for f in fields.values() if not f.is_copy], "fields"):
            rows += _cut_field(field, [p for p in points if p.field == field.name], folder)
        _write_table(folder / CELLS_TABLE, COLUMNS, rows)
    return read_all_idb_cells(out)


def write_all_idb2(root: Path, out: Path, *, source_fields: bool = True) -> None:
    """Rebuild ALL-IDB2 in its official layout, ``img/ImNNN_Y.tif``; every crop has the published pixels.

    Args:
        root: see ``training.datasets.all_idb_fields``; needs ``all_idb2.csv`` and the pieces of fields that are kept back.
        out: new folder.
        source_fields: also write the table that says which block each crop is of, and which crops are of fields that are kept back.

    Raises:
        DatasetError: the folder exists, a file is missing, or a crop has other pixels.
    """
    fields, crops = read_fields(root), read_crops(root)
    with new_folder(out) as folder:
        (folder / "img").mkdir()
        for crop in track(crops, ALL_IDB2):
            Image.fromarray(_crop_pixels(crop, root)).save(folder / "img" / crop.name)
        if source_fields:
            rows = [(c.name, block_of(c, fields), str(int(c.kept_back is not None))) for c in crops]
            _write_table(folder / SOURCE_FIELDS, ("name", "block", "kept_back"), rows)


def write_both(root: Path, out: Path) -> tuple[Dataset, Dataset]:
    """Write the windows to ``out/all_idb_cells`` and ALL-IDB2 with its table to ``out/ALL_IDB2``; nothing is left behind if that fails.

    Raises:
        DatasetError: the folder exists, or a file is missing or broken.
    """
    with new_folder(out) as folder:
        write_cells(root, folder / ALL_IDB_CELLS)
        write_all_idb2(root, folder / "ALL_IDB2")
    return read_all_idb_cells(out / ALL_IDB_CELLS), read_all_idb2(out / "ALL_IDB2")


def block_of(crop: SourceCrop, fields: Mapping[str, Field]) -> str:
    """Block of a crop; that of a field that is kept back is the field itself.

    Raises:
        DatasetError: a crop that is not kept back is of a field that is not there.
    """
    if crop.kept_back is not None:
        return f"kept-back-{crop.field}"
    if crop.field not in fields:
        raise DatasetError(f"{CROPS}: {crop.name} is of {crop.field}, which is not among the fields.")
    return fields[crop.field].block


def _cut_field(field: Field, points: Sequence[Point], folder: Path) -> list[tuple[str, ...]]:
    wanted = [(p, c) for p in points if (c := p.cell_class(field)) in _LABELS and not (c is CellClass.BLAST and p.near_border(field))]
    if not wanted:
        return []
    margin = WINDOW // 2
    padded = cv2.copyMakeBorder(_pixels(field.path), margin, margin, margin, margin, cv2.BORDER_REFLECT_101)
    rows: list[tuple[str, ...]] = []
    for point, found in wanted:
        name = f"cells/{field.name}_{point.x:04d}_{point.y:04d}.tif"
        Image.fromarray(padded[point.y : point.y + WINDOW, point.x : point.x + WINDOW]).save(folder / name)
        rows.append((name, point.kind, _LABELS[found], field.name, field.block, field.fold))
    return rows


def _crop_pixels(crop: SourceCrop, root: Path) -> Bytes:
    source = crop.kept_back or root / "ALL_IDB1" / "im" / f"{crop.field}.jpg"
    x, y = (crop.x - crop.piece_x, crop.y - crop.piece_y) if crop.kept_back else (crop.x, crop.y)
    pixels = np.ascontiguousarray(_pixels(existing(source, CROPS))[y : y + crop.height, x : x + crop.width])
    if hashlib.sha256(pixels.tobytes()).hexdigest() != crop.pixels_sha256:
        raise DatasetError(f"{crop.name}: {source} decodes to other pixels than those that were published.")
    return pixels


@lru_cache(maxsize=2)
def _pixels(path: Path) -> Bytes:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error


def _write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])
