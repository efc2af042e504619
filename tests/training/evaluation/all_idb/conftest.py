"""Small packs as windows of ALL-IDB1 and crops of ALL-IDB2 give them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from training.crops.making import MEASURES
from training.crops.packs import Pack, PackHeader
from training.datasets.all_idb_fields import LYMPHOBLAST, SMUDGED
from training.datasets.dataset import GroupKind, ImageKind

SIDE = 8
KINDS = (LYMPHOBLAST, "lymphocyte", SMUDGED)
BLASTS_AND_NORMALS = (
    *((f"olympus-{n}", (4, 2)) for n in (1, 2, 3)),
    *((f"canon-{n}", (3, 2)) for n in (1, 2, 3, 4, 5)),
    *((f"canon-{n}-healthy", (0, 3)) for n in (1, 2, 3, 4, 5)),
)
"""Cells of each block."""


def pack_of(rows: Sequence[tuple[str, str]], dataset: str = "all_idb_cells", seed: int = 0) -> Pack:
    """A pack of cells by block and kind; blasts are darker. Keys are ``cell-000`` and so on."""
    generator = np.random.default_rng(seed)
    kinds = np.array([kind for _, kind in rows])
    is_blast = np.select([kinds == LYMPHOBLAST, kinds == "lymphocyte"], [1, 0], -1).astype(np.int8)
    light = 200 - 60 * (is_blast == 1)[:, None, None, None]
    count = len(rows)
    return Pack(
        PackHeader(dataset, ImageKind.CELL, KINDS, False, GroupKind.BLOCK, SIDE, "registered"),
        np.clip(light + generator.normal(0, 20, (count, SIDE, SIDE, 3)), 0, 255).astype(np.uint8),
        np.array([[kind == name for name in KINDS] for kind in kinds], np.int8),
        is_blast,
        keys=np.array([f"cell-{i:03d}" for i in range(count)]),
        groups=np.array([block for block, _ in rows]),
        subsets=np.array([""] * count),
        folds=np.array([block.removesuffix("-healthy") for block, _ in rows]),
        sha256=np.array([f"{i:064x}" for i in range(count)]),
        measures={name: np.full(count, 1.0, np.float32) for name in MEASURES},
    )


@pytest.fixture
def windows() -> Pack:
    """Windows of both cameras, with one smudged cell in each leukaemic block."""
    rows = []
    for block, (blasts, normals) in BLASTS_AND_NORMALS:
        rows += [(block, LYMPHOBLAST)] * blasts + [(block, "lymphocyte")] * normals
        rows += [] if block.endswith("-healthy") else [(block, SMUDGED)]
    return pack_of(rows)


@pytest.fixture
def cells(windows: Pack) -> Pack:
    """The windows that are blast or normal."""
    return windows.select(windows.is_blast >= 0)
