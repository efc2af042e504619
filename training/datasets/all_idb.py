"""ALL-IDB1 (whole fields), ALL-IDB2 (cropped cells) and ALL-IDB Patches; on request from their authors, never part of the project."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.common.image_files import is_left_over, shown
from training.datasets.dataset import Dataset, GroupKind, ImageKind, LabelledImage, Subset, existing, images_in
from training.datasets.tables import read_rows
from training.errors import DatasetError

ALL_IDB1: Final = "all_idb1"
ALL_IDB2: Final = "all_idb2"
ALL_IDB_PATCHES: Final = "all_idb_patches"
PATCHES_TABLE: Final = "ALL_IDB1_patches_256_overlap_0.25_toll_5.csv"
PATCH_LABELS: Final = ("White blood cell probable ALL lymphoblast", "Other cases")
"""Label columns of the patches table: a patch may show both, one or none."""
OLDER_PATCH_LABELS: Final = ("Blast_present", "Normal_present")
HEALTHY, LEUKAEMIC = "healthy", "leukaemic"
NORMAL, LYMPHOBLAST = "normal", "lymphoblast"
BLOCK_SIZE: Final = 10
"""Crops of ALL-IDB2 in a row that are kept together: several come from one field, and no field or patient is published."""
SOURCE_FIELDS: Final = "source_fields.csv"
"""Table of ALL-IDB2 beside its images: name, block, kept_back; ``dl4all data all-idb`` writes it."""
_NAME: Final = re.compile(r"(?:Im)?(?P<number>\d{3})_(?P<label>[01])")
_PATCH_NAME: Final = re.compile(r"(?P<field>(?:Im)?\d{3}_[01])_patch_\d+")


@dataclass(frozen=True)
class Centroids:
    """Cell centres of a field, (x, y) in px of the full image: probable lymphoblasts and other nucleated cells."""

    lymphoblasts: tuple[tuple[float, float], ...]
    others: tuple[tuple[float, float], ...]


def read_all_idb1(root: Path) -> Dataset:
    """Read ALL-IDB1: ``im/ImNNN_Y.jpg`` (or directly in the folder); a field is a group of its own, patients are not published.

    Raises:
        DatasetError: no images, or a name is not of the form ``ImNNN_Y``.
    """
    folder = root / "im" if (root / "im").is_dir() else root
    images = []
    for path in images_in(folder, (".jpg", ".jpeg")):
        label = _label(path)
        images.append(LabelledImage(path, ALL_IDB1, path.name, (LEUKAEMIC if label else HEALTHY,), path.stem))
    notes = (
        "the leukaemic fields are mostly of another size than the healthy ones: the size alone tells much of the class",
        "patients are not published: fields of one patient may stand on both sides of a split",
    )
    return Dataset(ALL_IDB1, ImageKind.FIELD, (HEALTHY, LEUKAEMIC), GroupKind.FIELD, tuple(images), notes=notes)


def read_all_idb2(root: Path) -> Dataset:
    """Read ALL-IDB2: ``img/ImNNN_Y.tif`` (or directly in the folder, with or without ``Im``).

    Crops are grouped by the table ``SOURCE_FIELDS`` where it lies in the folder: the block of the field that each was cut out of, and whether that
    field is kept back. Without it they are grouped in runs of ``BLOCK_SIZE`` numbers.

    Raises:
        DatasetError: no images, a name is not of the form ``ImNNN_Y``, or the table lacks a crop.
    """
    folder = root / "img" if (root / "img").is_dir() else root
    blocks = _blocks(root / SOURCE_FIELDS)
    images = []
    for path in images_in(folder, (".tif", ".tiff")):
        label, number = _label(path), _number(path)
        block = f"{label}-{(number - 1) // BLOCK_SIZE:02d}"
        subset = Subset.UNASSIGNED
        if blocks:
            if path.name not in blocks:
                raise DatasetError(f"{root / SOURCE_FIELDS} does not say which field {shown(path.name)} comes from.")
            block, subset = blocks[path.name]
        images.append(LabelledImage(path, ALL_IDB2, path.name, ((NORMAL, LYMPHOBLAST)[label],), block, subset, is_blast=label))
    unknown = (
        f"neither patient nor field is published; runs of {BLOCK_SIZE} file numbers are kept together, which lessens leaks and cannot rule them out"
    )
    known = "crops are grouped by imaging session, or by blocks of fields of one session: patients are not published, and few"
    notes = (known if blocks else unknown,)
    return Dataset(ALL_IDB2, ImageKind.CELL, (NORMAL, LYMPHOBLAST), GroupKind.BLOCK, tuple(images), notes=notes)


def read_all_idb_patches(root: Path) -> Dataset:
    """Read ALL-IDB Patches: the table with ``<image>_patch_<k>.tif`` beside it or in ``patches/``; multi-label, grouped by field.

    Raises:
        DatasetError: the table or a patch is missing, or a label is not 0 or 1.
    """
    table = root / PATCHES_TABLE
    if not table.is_file():
        table = next((p for p in sorted(root.glob("*patches*.csv")) if not is_left_over(p.name)), table)
    rows = read_rows(table, ("Filename",), (*PATCH_LABELS, *OLDER_PATCH_LABELS))
    columns = next((c for c in (PATCH_LABELS, OLDER_PATCH_LABELS) if set(c) <= set(rows[0] if rows else ())), None)
    if columns is None:
        raise DatasetError(f"{table} has neither the columns {list(PATCH_LABELS)} nor {list(OLDER_PATCH_LABELS)}.")
    folder = root / "patches" if (root / "patches").is_dir() else root
    images = []
    for row in rows:
        name = row["Filename"].strip()
        found = _PATCH_NAME.match(name)
        values = [row[c].strip() for c in columns]
        if found is None or any(v not in ("0", "1") for v in values):
            raise DatasetError(f"{table}: the row of {name!r} is not <image>_patch_<k>.tif with labels 0 or 1.")
        shown = tuple(label for label, v in zip((LYMPHOBLAST, NORMAL), values, strict=True) if v == "1")
        images.append(LabelledImage(existing(folder / name, table.name), ALL_IDB_PATCHES, name, shown, found["field"]))
    return Dataset(ALL_IDB_PATCHES, ImageKind.PATCH, (LYMPHOBLAST, NORMAL), GroupKind.FIELD, tuple(images), multi_label=True)


def read_centroids(path: Path, *, legacy_drop_first: bool = False) -> tuple[tuple[float, float], ...]:
    """Read one ``.xyc`` file: ``x y`` per line, tab or space, no header, may be empty; reading stops at the first empty line.

    Args:
        path: the file.
        legacy_drop_first: throw the first line away, as the published MATLAB program does (108 points are lost).

    Raises:
        DatasetError: a line is not two numbers.
    """
    points = []
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            break
        points.append(_point(path, number, line))
    return tuple(points[1:] if legacy_drop_first else points)


def read_merged_centroids(path: Path) -> Centroids:
    """Read a merged file: a heading, points of probable lymphoblasts, a heading, points of other cells.

    Headings: ``WBC_probable_lymphoblasts`` and ``Other_cases``, or ``blasts`` and ``normal``; tabs, spaces and CRLF are accepted.

    Raises:
        DatasetError: the file is unreadable, a heading is missing, or a line is not two numbers.
    """
    headings = {"wbc_probable_lymphoblasts": "lymphoblasts", "blasts": "lymphoblasts", "other_cases": "others", "normal": "others"}
    points: dict[str, list[tuple[float, float]]] = {}
    current: list[tuple[float, float]] | None = None
    for number, line in enumerate(_lines(path), start=1):
        heading = headings.get(line.strip().lower())
        if heading is not None:
            current = points.setdefault(heading, [])
        elif line.strip():
            if current is None:
                raise DatasetError(f"{path}: line {number} stands before any heading.")
            current.append(_point(path, number, line))
    if set(points) != {"lymphoblasts", "others"}:
        raise DatasetError(f"{path}: the headings for lymphoblasts and other cells are not both there.")
    return Centroids(tuple(points["lymphoblasts"]), tuple(points["others"]))


def read_all_centroids(folder: Path) -> dict[str, tuple[tuple[float, float], ...]]:
    """All ``ImNNN_Y.xyc`` of a folder by image name.

    Raises:
        DatasetError: there are none, or one is broken.
    """
    return {path.stem: read_centroids(path) for path in images_in(folder, (".xyc",))}


def _blocks(table: Path) -> dict[str, tuple[str, Subset]]:
    """Block and subset by name of the crop; nothing where there is no table."""
    if not table.is_file():
        return {}
    rows = read_rows(table, ("name", "block", "kept_back"))
    return {row["name"]: (row["block"], Subset.KEPT_BACK if row["kept_back"] == "1" else Subset.UNASSIGNED) for row in rows}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} is not a readable centroid file: {error}") from error


def _point(path: Path, number: int, line: str) -> tuple[float, float]:
    parts = line.split()
    try:
        x, y = (float(part) for part in parts)
    except ValueError as error:
        raise DatasetError(f"{path}: line {number} is not two numbers: {line!r}.") from error
    return x, y


def _label(path: Path) -> int:
    return int(_named(path)["label"])


def _number(path: Path) -> int:
    return int(_named(path)["number"])


def _named(path: Path) -> re.Match[str]:
    found = _NAME.fullmatch(path.stem)
    if found is None:
        raise DatasetError(f"{shown(path.name)} is not called ImNNN_Y with a number and a class 0 or 1.")
    return found
