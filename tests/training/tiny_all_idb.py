"""A tiny copy of the folder of ALL-IDB fields with its tables: two cameras, a few sessions, points of every kind, two fields that are kept back."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 420, 400
OLYMPUS: Final = {"Im001_1": "s01", "Im002_1": "s02", "Im004_1": "s03", "Im005_1": "s03", "Im020_1": "s06"}
CANON: Final = [f"Im{n:03d}_1" for n in range(48, 54)]
HEALTHY: Final = [f"Im{n:03d}_0" for n in range(80, 86)]
COPY: Final = "Im108_0"
KEPT_BACK: Final = ("Im060_1", "Im099_0")
MIDDLE, BORDER = (210, 200), (30, 200)
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
        image = Image.fromarray(_field(generator))
        image.save(root / "ALL_IDB1" / "im" / f"{name}.jpg", quality=95)
        blasts = 2 if name.endswith("_1") else 0
        copy_of = HEALTHY[0] if name == COPY else ""
        row = (f"ALL_IDB1/im/{name}.jpg", label, blasts, WIDTH, HEIGHT, camera, f"2005-09-06 10:{i:02d}:00", session, copy_of)
        fields.append(row)
        if blasts:
            points += [(name, 150, 150, "lymphoblast"), (name, 20, 380, "lymphoblast")]
        for kind, (x, y) in _KINDS:
            points.append((name, x, y, "other"))
            kinds.append((name, x, y, kind, int(min(x, y) < 65), 1))
    _table(root / "fields.csv", ("path", "label", "n_blasts", "width", "height", "camera", "taken", "session", "duplicate_of"), fields)
    _table(root / "points.csv", ("field", "x", "y", "label"), points)
    _table(root / "kinds.csv", ("field", "x", "y", "kind", "near_border", "looked"), kinds)
    _crops(root, generator)
    return root


def _crops(root: Path, generator: np.random.Generator) -> None:
    rows: list[tuple[object, ...]] = []
    sources = [*OLYMPUS, *CANON, KEPT_BACK[0], *HEALTHY, KEPT_BACK[1]]
    for i, field in enumerate(sources):
        name = f"Im{i + 1:03d}_{field[-1]}.tif"
        held = ""
        left, top, offset = 60, 50, 10
        if field in KEPT_BACK:
            held = f"held_crops/{name[:-4]}.jpg"
            Image.fromarray(_field(generator)).save(root / held, quality=95)
            x, y, path = offset, offset, root / held
        else:
            x, y, path = left, top, root / "ALL_IDB1" / "im" / f"{field}.jpg"
        with Image.open(path) as image:
            pixels = np.ascontiguousarray(np.asarray(image.convert("RGB"))[y : y + 257, x : x + 257])
        digest = hashlib.sha256(pixels.tobytes()).hexdigest()
        label = "lymphoblast" if field.endswith("_1") else "normal"
        piece = (left - offset, top - offset) if held else ("", "")
        rows.append((name, label, field, left, top, 257, 257, digest, held, *piece))
    columns = ("name", "label", "source_field", "x0", "y0", "width", "height", "pixels_sha256", "held_crop", "crop_x0", "crop_y0")
    _table(root / "all_idb2.csv", columns, rows)


def _field(generator: np.random.Generator) -> np.ndarray:
    small = generator.integers(120, 255, (HEIGHT // 20, WIDTH // 20, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.uint8)


def _table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])
