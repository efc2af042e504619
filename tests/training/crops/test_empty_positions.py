"""Tests of positions without a cell: inside the image, away from every cell, the same for the same image."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from services.common.phantom import CellKind, single_cell
from services.patching.cells import LocatedCell
from services.preprocessing.registration import RELATIVE_RADIUS
from training.crops.empty_positions import position_without_cell
from training.crops.making import prepare
from training.datasets.dataset import Dataset, GroupKind, ImageKind, LabelledImage, Subset
from training.recipes.config import Input, InputKind

pytestmark = pytest.mark.slow

CELLS = st.lists(st.tuples(st.floats(0, 400), st.floats(0, 300), st.floats(4, 80)), max_size=4)


def _cell(x: float, y: float, radius: float) -> LocatedCell:
    return LocatedCell(x, y, radius, 0, 0, 1, 1, 1.0)


@given(CELLS, st.floats(20, 90), st.integers(0, 2**32))
def test_a_position_lies_inside_and_away_from_every_cell(cells: list[tuple[float, float, float]], radius: float, seed: int) -> None:
    located = [_cell(*c) for c in cells]
    position = position_without_cell(located, (300, 400), radius, np.random.default_rng(seed))
    assert position == position_without_cell(located, (300, 400), radius, np.random.default_rng(seed))
    if position is None:
        return
    x, y, own = position
    half = own / (2 * RELATIVE_RADIUS)
    assert 0.3 * radius <= own <= 0.8 * radius
    assert half <= x <= 400 - half
    assert half <= y <= 300 - half
    assert all(math.hypot(x - c.center_x, y - c.center_y) > own + c.radius for c in located)


def test_where_there_is_no_room_there_is_no_position() -> None:
    assert position_without_cell([_cell(50, 50, 60)], (100, 100), 60.0, np.random.default_rng(0)) is None
    assert position_without_cell([], (100, 100), 400.0, np.random.default_rng(0)) is None


def test_a_pack_of_background_is_of_one_class_and_keeps_groups(tmp_path: Path) -> None:
    images = []
    for i in range(3):
        drawn = single_cell(i, CellKind.LYMPHOCYTE).image
        path = tmp_path / f"cell_{i}.png"
        Image.fromarray(np.pad(drawn, ((120, 0), (120, 0), (0, 0)), mode="edge")).save(path)
        images.append(LabelledImage(path, "some", path.name, ("x",), f"g{i}", Subset.TRAIN, is_blast=1))
    dataset = Dataset("some", ImageKind.CELL, ("x",), GroupKind.PATIENT, tuple(images))
    pack = prepare(dataset, Input(kind=InputKind.REGISTERED, side=64, subject="nothing"))
    assert (pack.header.classes, pack.header.subject) == (("nothing",), "nothing")
    assert pack.groups.tolist() == ["g0", "g1", "g2"]
    assert pack.is_blast.tolist() == [-1, -1, -1]
    cells = prepare(dataset, Input(kind=InputKind.REGISTERED, side=64))
    assert pack.digest() != cells.digest()
    middle = (slice(None), slice(24, 40), slice(24, 40))
    assert pack.pixels[middle].mean() > cells.pixels[middle].mean() + 30
