"""The fields of ALL-IDB1 with cameras, sessions, the experts' points and the kind of every other point: tables beside the images.

The folder holds ``ALL_IDB1/im/ImNNN_Y.jpg`` and the tables ``fields.csv``, ``points.csv``, ``kinds.csv`` and ``all_idb2.csv``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import numpy as np

from training.datasets.dataset import existing
from training.datasets.tables import read_rows
from training.errors import DatasetError

FIELDS, POINTS, KINDS, CROPS = "fields.csv", "points.csv", "kinds.csv", "all_idb2.csv"
CELL_RADIUS: Final = 65
"""Of a nucleated cell, px of a field of either camera. A point nearer to the border is of a cell that is cut off."""
LYMPHOBLAST: Final = "lymphoblast"
NUCLEATED: Final = frozenset({"neutrophil", "eosinophil", "basophil", "lymphocyte", "monocyte", "erythroblast"})
"""Kinds of other points that are normal nucleated cells."""
UNKNOWN: Final = frozenset({"cut", "unsure", "lymphoblast_like"})
"""Kinds of cells whose class nobody knows: neither class for a classifier, cells for a locator."""
SMUDGED: Final = "smudged"
NO_CELL: Final = frozenset({"platelet_or_debris", "debris"})
LAST_OLYMPUS: Final = 33
"""Fields up to this number are of the Olympus camera, by their published size of 1712 x 1368 px; the later ones are of the Canon."""
CANON_BLOCKS: Final = 5
_OLYMPUS_BLOCKS: Final[Mapping[str, str]] = {"s01": "olympus-1", "s02": "olympus-1", "s03": "olympus-2", "s06": "olympus-3"}
"""Sessions of the Olympus camera. The first two are one block: of both cameras, they have the fewest cells."""


class CellClass(StrEnum):
    """What a point is to a classifier."""

    BLAST = "blast"
    NORMAL = "normal"
    UNKNOWN = "unknown"
    SMUDGED = "smudged"
    NO_CELL = "no_cell"


@dataclass(frozen=True)
class Field:
    """One field that is there.

    Attributes:
        name: ``ImNNN_Y``.
        path: the JPEG file.
        is_leukaemic: whether its patient has ALL.
        camera: ``olympus`` or ``canon``.
        session: imaging session, by the times in EXIF.
        taken: date and time in EXIF; sorts by time.
        width, height: px.
        block: what a split keeps whole: sessions of the Olympus, contiguous runs of fields of the Canon; ``canon-2-healthy`` is of fold ``canon-2``.
        is_copy: whether it is another field once more.
    """

    name: str
    path: Path
    is_leukaemic: bool
    camera: str
    session: str
    taken: str
    width: int
    height: int
    block: str
    is_copy: bool

    @property
    def fold(self) -> str:
        """Fold of an honest cross-validation: one Olympus session, or a block of leukaemic and one of healthy Canon fields."""
        return self.block.removesuffix("-healthy")


@dataclass(frozen=True)
class Point:
    """A point that the experts or the authors set: (x, y) in px of the field, and its kind, ``lymphoblast`` or one of ``kinds.csv``."""

    field: str
    x: int
    y: int
    kind: str

    def near_border(self, field: Field) -> bool:
        """Whether the cell around it is cut off by the border."""
        return min(self.x, self.y, field.width - 1 - self.x, field.height - 1 - self.y) < CELL_RADIUS

    def cell_class(self, field: Field) -> CellClass:
        """What it is to a classifier.

        Cells near the border are of no class: those that no expert called a lymphoblast are mostly lymphoblasts that are cut off.

        Raises:
            DatasetError: the kind is not known.
        """
        if self.kind in NO_CELL:
            return CellClass.NO_CELL
        if self.kind == SMUDGED:
            return CellClass.SMUDGED
        if self.kind in UNKNOWN or (self.kind in NUCLEATED and self.near_border(field)):
            return CellClass.UNKNOWN
        if self.kind == LYMPHOBLAST:
            return CellClass.BLAST
        if self.kind in NUCLEATED:
            return CellClass.NORMAL
        raise DatasetError(f"{self.field}: nothing is known of points of the kind {self.kind!r}.")


@dataclass(frozen=True)
class SourceCrop:
    """A crop of ALL-IDB2: where it was cut out.

    Attributes:
        name: ``ImNNN_Y.tif``.
        is_blast: its label.
        field: the field that it was cut out of.
        x, y, width, height: in px of that field.
        pixels_sha256: of its pixels, uint8 RGB row by row.
        kept_back: a piece of the field around the crop, where the field itself is kept back; None where it is there.
        piece_x, piece_y: where that piece lies in the field.
    """

    name: str
    is_blast: bool
    field: str
    x: int
    y: int
    width: int
    height: int
    pixels_sha256: str
    kept_back: Path | None
    piece_x: int
    piece_y: int

    @property
    def camera(self) -> str:
        """``olympus`` or ``canon``, by the number of the field."""
        return camera_of(self.field)


def camera_of(field: str) -> str:
    """Camera of a field ``ImNNN_Y`` of ALL-IDB1."""
    return "olympus" if int(field[2:5]) <= LAST_OLYMPUS else "canon"


def read_fields(root: Path) -> dict[str, Field]:
    """Fields by name, copies included.

    Raises:
        DatasetError: the table or an image is missing, or a session is not known.
    """
    columns = ("path", "label", "width", "height", "camera", "taken", "session", "duplicate_of")
    rows = {Path(row["path"]).stem: row for row in read_rows(root / FIELDS, columns)}
    blocks = _canon_blocks(rows)
    fields = {}
    for name, row in rows.items():
        block = blocks.get(name) or _OLYMPUS_BLOCKS.get(row["session"])
        if block is None:
            raise DatasetError(f"{root / FIELDS}: nothing is known of the session {row['session']!r} of {name}.")
        fields[name] = Field(
            name,
            existing(root / row["path"], FIELDS),
            row["label"] == "ALL",
            camera_of(name),
            row["session"],
            row["taken"],
            int(row["width"]),
            int(row["height"]),
            block,
            bool(row["duplicate_of"]),
        )
    return fields


def read_points(root: Path) -> list[Point]:
    """Points of lymphoblasts, and other points with the kind that was seen by eye.

    Raises:
        DatasetError: a table is missing or broken, or an other point has no kind.
    """
    kinds = {(r["field"], r["x"], r["y"]): r["kind"] for r in read_rows(root / KINDS, ("field", "x", "y", "kind"))}
    points = []
    for row in read_rows(root / POINTS, ("field", "x", "y", "label")):
        kind = row["label"] if row["label"] == LYMPHOBLAST else kinds.get((row["field"], row["x"], row["y"]))
        if kind is None:
            raise DatasetError(f"{root / KINDS} does not say what the point {row['x']}, {row['y']} of {row['field']} is.")
        points.append(Point(row["field"], int(row["x"]), int(row["y"]), kind))
    return points


def read_crops(root: Path) -> list[SourceCrop]:
    """The crops of ALL-IDB2.

    Raises:
        DatasetError: the table is missing or broken.
    """
    columns = ("name", "label", "source_field", "x0", "y0", "width", "height", "pixels_sha256", "held_crop", "crop_x0", "crop_y0")
    return [
        SourceCrop(
            row["name"],
            row["label"] == LYMPHOBLAST,
            row["source_field"],
            int(row["x0"]),
            int(row["y0"]),
            int(row["width"]),
            int(row["height"]),
            row["pixels_sha256"],
            root / row["held_crop"] if row["held_crop"] else None,
            int(row["crop_x0"] or 0),
            int(row["crop_y0"] or 0),
        )
        for row in read_rows(root / CROPS, columns)
    ]


def _canon_blocks(rows: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Block of each Canon field: leukaemic fields, and healthy ones, in runs of neighbours by time. A copy is in the block of what it copies."""
    blocks: dict[str, str] = {}
    for label, suffix in (("ALL", ""), ("healthy", "-healthy")):
        own = sorted((r["taken"], n) for n, r in rows.items() if camera_of(n) == "canon" and r["label"] == label and not r["duplicate_of"])
        for number, run in enumerate(np.array_split(np.array([n for _, n in own], dtype=np.str_), CANON_BLOCKS), start=1):
            blocks.update(dict.fromkeys(run.tolist(), f"canon-{number}{suffix}"))
    return blocks | {n: blocks[r["duplicate_of"]] for n, r in rows.items() if r["duplicate_of"] in blocks}
