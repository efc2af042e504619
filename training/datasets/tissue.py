"""Stained tissue, the source domain: LC25000 tiles and the Atlas of Digital Pathology (ADP)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from training.datasets.dataset import Dataset, GroupKind, ImageKind, LabelledImage, existing
from training.datasets.tables import read_rows
from training.errors import DatasetError

LC25000_TILES: Final = "lc25000_tiles"
ADP: Final = "adp"
Level = Literal[1, 2, 3, "all"]
"""Level of ADP's taxonomy, or all three side by side."""
ALL_LEVELS: Final = "all"
ADP_TABLES: Final = ("ADP_EncodedLabels_Release1_Flat.csv", "ADP_EncodedLabels_Release1_Flat.csv.gz")
ADP_IMAGES: Final = "img_res_1um_bicubic"
_NAME_COLUMN: Final = "Patch Names"
_LEVELS: Final[tuple[Literal[1, 2, 3], ...]] = (1, 2, 3)
_LEVEL_1: Final = ("E", "C", "H", "S", "A", "M", "N", "G", "T")
_LEVEL_2: Final = ("E.M", "E.T", "C.D", "C.L", "H.E", "H.K", "H.Y", "S.M", "S.C", "S.R", "A.W", "A.M", "N.P", "N.R", "N.G", "G.O", "G.N")
_LEVEL_3: Final = ("E.M.S", "E.M.C", "E.T.S", "E.T.C", "C.D.I", "C.D.R", "N.G.M", "N.G.A", "N.G.O", "N.G.E", "N.G.R", "N.G.T")


def read_lc25000_tiles(root: Path) -> Dataset:
    """Read ``lc25000_tiles``: ``labels.csv`` with path, tissue_class, source_tile_group.

    Raises:
        DatasetError: the labels or an image are missing.
    """
    rows = read_rows(root / "labels.csv", ("path", "tissue_class", "source_tile_group"))
    images = tuple(LabelledImage(existing(root / r["path"]), LC25000_TILES, r["path"], (r["tissue_class"],), r["source_tile_group"]) for r in rows)
    return Dataset(LC25000_TILES, ImageKind.TISSUE, tuple(sorted({r["tissue_class"] for r in rows})), GroupKind.SOURCE_TILE, images)


def adp_classes(level: Level) -> tuple[str, ...]:
    """Classes of an ADP level, in the order of the label table: 9, 26 or 38; a level holds those above it.

    The five columns ``.X`` (undifferentiated or other) belong to no level, as in HistoTNet. Of ``all`` levels, 73 classes, each named by level and
    code: those of several levels stand several times, as three heads would have them.

    Raises:
        DatasetError: there is no such level.
    """
    if level == ALL_LEVELS:
        return tuple(f"{one}/{code}" for one in _LEVELS for code in adp_classes(one))
    if level not in _LEVELS:
        raise DatasetError(f"ADP has the levels 1, 2 and 3, or all, not {level}.")
    chosen = {*_LEVEL_1, *(_LEVEL_2 if level > 1 else ()), *(_LEVEL_3 if level > 2 else ())}
    return tuple(code for code in _TABLE_ORDER if code in chosen)


def heads_of(classes: Sequence[str]) -> tuple[slice, ...]:
    """Columns of each head that learns from labels: one, or one per level where classes are named by level and code."""
    levels = [name.partition("/")[0] if "/" in name else "" for name in classes]
    return tuple(slice(levels.index(level), levels.index(level) + levels.count(level)) for level in dict.fromkeys(levels))


def adp_slide(image_name: str) -> str:
    """Slide of an image: what precedes the first dot of ``<slide>.png_crop_<k>.png``."""
    return image_name.split(".", 1)[0]


def read_adp_table(table: Path, level: Level) -> list[tuple[str, tuple[str, ...]]]:
    """Image names with their class codes, in the order of the table; needs no images.

    Raises:
        DatasetError: the table is missing, lacks a column or holds something else than 0 and 1.
    """
    classes = adp_classes(level)
    images = []
    codes = [name.rpartition("/")[2] for name in classes]
    for row in read_rows(table, (_NAME_COLUMN, *codes)):
        values = [row[c].strip() for c in codes]
        if any(v not in ("0", "1") for v in values):
            raise DatasetError(f"{table}: the labels of {row[_NAME_COLUMN]} are not 0 and 1.")
        images.append((row[_NAME_COLUMN], tuple(c for c, v in zip(classes, values, strict=True) if v == "1")))
    return images


def read_adp(root: Path, level: Level = 1) -> Dataset:
    """Read ADP: the label table beside the folder ``img_res_1um_bicubic``; multi-label, grouped by slide.

    Raises:
        DatasetError: the table or an image is missing, or there is no such level.
    """
    table = next((root / name for name in ADP_TABLES if (root / name).is_file()), root / ADP_TABLES[0])
    images = tuple(
        LabelledImage(existing(root / ADP_IMAGES / name, table.name), ADP, name, codes, adp_slide(name))
        for name, codes in read_adp_table(table, level)
    )
    return Dataset(ADP, ImageKind.TISSUE, adp_classes(level), GroupKind.SLIDE, images, multi_label=True)


_TABLE_ORDER: Final = (
    *("E", "E.M", "E.M.S", "E.M.C", "E.T", "E.T.S", "E.T.C", "C", "C.D", "C.D.I", "C.D.R", "C.L", "H", "H.E", "H.K", "H.Y"),
    *("S", "S.M", "S.C", "S.R", "A", "A.W", "A.M", "M", "N", "N.P", "N.R", "N.G", "N.G.M", "N.G.A", "N.G.O", "N.G.E", "N.G.R", "N.G.T"),
    *("G", "G.O", "G.N", "T"),
)
