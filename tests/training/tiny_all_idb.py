"""A tiny copy of the folder of ALL-IDB fields with its tables: two cameras, a few sessions, points of every kind, two fields that are kept back.

Every point that is a cell shows one that the classical locator finds: blasts are larger than the others. Each crop is around one of its class.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import pytest
from PIL import Image

from training.crops import making
from training.datasets.all_idb import PATCHES_TABLE
from training.datasets.all_idb_patches import COLUMNS
from training.evaluation.all_idb.data import BenchmarkData

WIDTH, HEIGHT = 420, 400
OLYMPUS: Final = {"Im001_1": "s01", "Im002_1": "s02", "Im004_1": "s03", "Im005_1": "s03", "Im020_1": "s06"}
CANON: Final = [f"Im{n:03d}_1" for n in range(48, 54)]
HEALTHY: Final = [f"Im{n:03d}_0" for n in range(80, 86)]
COPY: Final = "Im108_0"
KEPT_BACK: Final = ("Im060_1", "Im099_0")
MIDDLE, BORDER = (210, 200), (30, 200)
BLAST: Final = (150, 150)
BLAST_RADIUS, OTHER_RADIUS = 38, 26
_KINDS: Final = (("lymphocyte", MIDDLE), ("platelet_or_debris", (100, 300)), ("cut", BORDER), ("smudged", (300, 100)), ("neutrophil", (200, 20)))


def write_all_idb(root: Path) -> Path:
    """Write the folder; returns it."""
    (root / "ALL_IDB1" / "im").mkdir(parents=True)
    (root / "held_crops").mkdir()
    generator = np.random.default_rng(1)
    fields, points, kinds = [], [], []
    for i, name in enumerate([*OLYMPUS, *CANON, *HEALTHY, COPY]):
        session = OLYMPUS.get(name) or ("s11" if name.endswith("_1") else "s12")
        camera = "C2500L" if name in OLYMPUS else "Canon PowerShot G5"
        label = "ALL" if name.endswith("_1") else "healthy"
        shown = [(BLAST, BLAST_RADIUS), ((20, 380), BLAST_RADIUS)] if name.endswith("_1") else []
        shown += [(position, OTHER_RADIUS) for kind, position in _KINDS if kind != "platelet_or_debris"]
        image = Image.fromarray(_field(generator, shown))
        image.save(root / "ALL_IDB1" / "im" / f"{name}.jpg", quality=95)
        blasts = 2 if name.endswith("_1") else 0
        copy_of = HEALTHY[0] if name == COPY else ""
        row = (f"ALL_IDB1/im/{name}.jpg", label, blasts, WIDTH, HEIGHT, camera, f"2005-09-06 10:{i:02d}:00", session, copy_of)
        fields.append(row)
        if blasts:
            points += [(name, *BLAST, "lymphoblast"), (name, 20, 380, "lymphoblast")]
        for kind, (x, y) in _KINDS:
            points.append((name, x, y, "other"))
            kinds.append((name, x, y, kind, int(min(x, y) < 65), 1))
    _table(root / "fields.csv", ("path", "label", "n_blasts", "width", "height", "camera", "taken", "session", "duplicate_of"), fields)
    _table(root / "points.csv", ("field", "x", "y", "label"), points)
    _table(root / "kinds.csv", ("field", "x", "y", "kind", "near_border", "looked"), kinds)
    _crops(root, generator)
    return root


@contextmanager
def tiny_benchmark(folder: Path) -> Iterator[BenchmarkData]:
    """The tiny folder, with an empty one beside it for what is cut and prepared; crops are made in this process, which is quicker for a few."""

    def in_this_process(function: Callable[[Any], Any], items: Iterable[Any], what: str) -> list[Any]:
        return [function(item) for item in items]

    write_all_idb(folder / "data" / "all_idb")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(making, "in_processes", in_this_process)
        yield BenchmarkData.find(folder / "data", folder / "cache")


def write_patches_of(data: BenchmarkData, rows: Sequence[tuple[str, int, int]]) -> None:
    """Put patches of any fields with any two labels where those of the tiny fields would be cut to, which all show both kinds of cells.

    Patches with a lymphoblast are darker than the others.
    """
    generator = np.random.default_rng(3)
    (data.cut / "patches" / "patches").mkdir(parents=True)
    table = []
    for i, (field, blast, other) in enumerate(rows):
        name = f"{field}_patch_{i + 1}.tif"
        pixels = np.clip(generator.normal(220 - 80 * blast, 20, (256, 256, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(data.cut / "patches" / "patches" / name)
        table.append((name, blast, other, "N/A", "N/A"))
    _table(data.cut / "patches" / PATCHES_TABLE, COLUMNS, table)


def _crops(root: Path, generator: np.random.Generator) -> None:
    rows: list[tuple[object, ...]] = []
    sources = [*OLYMPUS, *CANON, KEPT_BACK[0]]
    for i, field in enumerate([*HEALTHY, KEPT_BACK[1]]):
        sources.insert(min(3 * i + 2, len(sources)), field)  # both classes are in each run of crops
    for i, field in enumerate(sources):
        name = f"Im{10 * i + 1:03d}_{field[-1]}.tif"  # each is in a run of numbers of its own, as the published layout groups them
        held = ""
        center, radius = (BLAST, BLAST_RADIUS) if field.endswith("_1") else (MIDDLE, OTHER_RADIUS)
        left, top, offset = center[0] - 128, center[1] - 128, 10
        if field in KEPT_BACK:
            held = f"held_crops/{name[:-4]}.jpg"
            piece = _field(generator, [((offset + 128, offset + 128), radius)])
            Image.fromarray(piece).save(root / held, quality=95)
            x, y, path = offset, offset, root / held
        else:
            x, y, path = left, top, root / "ALL_IDB1" / "im" / f"{field}.jpg"
        with Image.open(path) as image:
            pixels = np.ascontiguousarray(np.asarray(image.convert("RGB"))[y : y + 257, x : x + 257])
        digest = hashlib.sha256(pixels.tobytes()).hexdigest()
        label = "lymphoblast" if field.endswith("_1") else "normal"
        corner = (left - offset, top - offset) if held else ("", "")
        rows.append((name, label, field, left, top, 257, 257, digest, held, *corner))
    columns = ("name", "label", "source_field", "x0", "y0", "width", "height", "pixels_sha256", "held_crop", "crop_x0", "crop_y0")
    _table(root / "all_idb2.csv", columns, rows)


def _field(generator: np.random.Generator, cells: Sequence[tuple[tuple[int, int], int]]) -> np.ndarray:
    """A pale field with a few violet cells, each with a darker nucleus: centres (x, y) and radii in px."""
    field = np.full((HEIGHT, WIDTH, 3), (236, 226, 230), np.float32)
    for (x, y), radius in cells:
        tint = generator.uniform(-12, 12, 3)
        cv2.circle(field, (x, y), radius, tuple((np.array([176, 152, 205]) + tint).tolist()), -1, cv2.LINE_AA)
        cv2.circle(field, (x, y), round(0.85 * radius), tuple((np.array([104, 62, 140]) + tint).tolist()), -1, cv2.LINE_AA)
    grain = cv2.resize(generator.normal(0, 6, (HEIGHT // 3, WIDTH // 3, 3)).astype(np.float32), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    blurred = cv2.GaussianBlur(field + grain, (0, 0), generator.uniform(0.6, 2.0))
    return np.clip(blurred, 0, 255).astype(np.uint8)


def _table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])
