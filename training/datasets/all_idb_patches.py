"""Cut ALL-IDB1 into ALL-IDB Patches: the images, the table and the two independent labels of each patch."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from PIL import Image
from rich.progress import track

from services.common.errors import DomainError
from services.common.image_codec import decode_image
from services.patching.grid import Patch, Point, lay_grid
from training.datasets.all_idb import PATCH_LABELS, PATCHES_TABLE, Centroids, read_all_idb1, read_centroids, read_merged_centroids
from training.datasets.all_idb_fields import LYMPHOBLAST, POINTS
from training.datasets.tables import read_rows
from training.errors import DatasetError
from training.files.new_folders import new_folder

COLUMNS: Final = ("Filename", *PATCH_LABELS, "Centroids blasts", "Centroids other cases")
NONE: Final = "N/A"
_MERGED: Final = ("merged", "xyc_merged")


@dataclass(frozen=True)
class Written:
    """How many patches were written, and how many show lymphoblasts, other nucleated cells, both, neither."""

    patches: int
    lymphoblasts: int
    others: int
    both: int
    neither: int


def write_patches(root: Path, out: Path, *, flush: bool = False, legacy_drop_first: bool = False) -> Written:
    """Cut every field of an ALL-IDB1 folder; nothing is left behind if that fails.

    Args:
        root: ``im/ImNNN_Y.jpg`` with ``xyc/ImNNN_Y.xyc`` (lymphoblasts) and ``other/ImNNN_Y.xyc``, or ``merged/ImNNN_Y.xyc``, or with the
            table ``points.csv`` beside the folder, which has all points.
        out: new folder: ``patches/<image>_patch_<k>.tif`` and the table.
        flush: see ``lay_grid``; not in the published data.
        legacy_drop_first: lose the first point of every file of other cells, as the published program does.

    Raises:
        DatasetError: the folder exists, or images or centroids are missing or broken.
    """
    fields = [image.path for image in read_all_idb1(root).images]
    centroids = {path.stem: centroids_of(root, path.stem, legacy_drop_first=legacy_drop_first) for path in fields}
    with new_folder(out) as folder:
        (folder / "patches").mkdir()
        rows = [row for path in track(fields, "fields") for row in _cut(path, centroids[path.stem], folder / "patches", flush)]
        _write_table(rows, folder / PATCHES_TABLE)
    counts = Counter((row[1], row[2]) for row in rows)
    blast, other, both = counts["1", "0"], counts["0", "1"], counts["1", "1"]
    return Written(len(rows), blast + both, other + both, both, counts["0", "0"])


def centroids_of(root: Path, name: str, *, legacy_drop_first: bool = False) -> Centroids:
    """Centres of the nucleated cells of one field.

    Raises:
        DatasetError: they are not there, or broken.
    """
    merged = next((root / folder / f"{name}.xyc" for folder in _MERGED if (root / folder / f"{name}.xyc").is_file()), None)
    if merged is not None:
        return read_merged_centroids(merged)
    if not (root / "other").is_dir() and (root.parent / POINTS).is_file():
        return _tabled_centroids(root.parent / POINTS, name)
    blasts, others = root / "xyc" / f"{name}.xyc", root / "other" / f"{name}.xyc"
    return Centroids(read_centroids(blasts), read_centroids(others, legacy_drop_first=legacy_drop_first))


def _tabled_centroids(table: Path, name: str) -> Centroids:
    rows = [row for row in _point_rows(table) if row["field"] == name]
    by_label = [tuple((float(r["x"]), float(r["y"])) for r in rows if (r["label"] == LYMPHOBLAST) is is_blast) for is_blast in (True, False)]
    return Centroids(by_label[0], by_label[1])


@lru_cache(maxsize=1)
def _point_rows(table: Path) -> list[dict[str, str]]:
    return read_rows(table, ("field", "x", "y", "label"))


def patch_row(patch: Patch, field: str, centroids: Centroids) -> tuple[str, ...]:
    """Row of the published table: file, two labels, the centres in px of the patch."""
    inside = [[patch.local(p) for p in points if patch.holds(p)] for points in (centroids.lymphoblasts, centroids.others)]
    labels = [str(int(bool(points))) for points in inside]
    return (f"{field}_patch_{patch.number}.tif", *labels, *(_written(points) for points in inside))


def _cut(path: Path, centroids: Centroids, folder: Path, flush: bool) -> list[tuple[str, ...]]:
    try:
        pixels = decode_image(path.read_bytes()).pixels
        patches = lay_grid(pixels.shape[1], pixels.shape[0], flush=flush)
    except (DomainError, OSError) as error:
        raise DatasetError(f"{path}: {error}") from error
    rows = [patch_row(patch, path.stem, centroids) for patch in patches]
    for patch, row in zip(patches, rows, strict=True):
        square = pixels[patch.y : patch.y + patch.side, patch.x : patch.x + patch.side]
        Image.fromarray(square).save(folder / row[0], compression="tiff_lzw")
    return rows


def _write_table(rows: Sequence[tuple[str, ...]], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])


def _written(points: Sequence[Point]) -> str:
    return " ".join(f"{value:g}" for point in points for value in point) or NONE
