"""Tests of composed fields: one patient each, cells where the labels say, both kinds pasted alike, the same again from the same seed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from services.patching.cells import locate_cells
from services.patching.grid import Patch
from tests.training.composed import drawn_cells
from training.datasets.composed_fields import ComposedCell, ComposedField, CutCell, by_patient, compose_patient, cut_parts, turn
from training.datasets.dataset import Dataset, Subset
from training.errors import DatasetError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return drawn_cells(tmp_path_factory.mktemp("cells"), 9, patients=2)


@pytest.fixture(scope="module")
def fields(cells: Dataset) -> tuple[ComposedField, ...]:
    return compose_patient(by_patient(cells, Subset.TRAIN)["P00"], 3, (0.8, 1.2), seed=0)


def test_ambiguous_cells_are_left_out(cells: Dataset) -> None:
    patients = by_patient(cells, Subset.TRAIN)
    assert Counter({p: len(images) for p, images in patients.items()}) == {"P00": 8, "P01": 8}
    assert all(i.is_blast is not None for images in patients.values() for i in images)


def test_a_field_is_of_one_patient_and_just_holds_three_patches_per_axis(fields: tuple[ComposedField, ...]) -> None:
    assert len(fields) == 3
    for field in fields:
        assert (field.patient, field.subset) == ("P00", Subset.TRAIN)
        assert len(field.patches) == 9
        assert max(p.x + p.side for p in field.patches) == field.pixels.shape[1] == field.pixels.shape[0]
        assert field.patches[0].side == round(256 * field.scale)
        assert 0.8 <= field.scale <= 1.2


def test_cells_are_where_the_field_says(fields: tuple[ComposedField, ...]) -> None:
    pasted = 0
    for field in fields:
        located = locate_cells(field.pixels).cells
        side = len(field.pixels)
        whole = [c for c in field.cells if min(c.x, c.y, side - c.x, side - c.y) > c.radius + 10]
        for cell in whole:
            pasted += 1
            assert min(np.hypot(cell.x - found.center_x, cell.y - found.center_y) for found in located) < 0.4 * cell.radius
    assert pasted > 2


def test_the_same_seed_makes_the_same_fields(cells: Dataset, fields: tuple[ComposedField, ...]) -> None:
    images = by_patient(cells, Subset.TRAIN)["P00"]
    again = compose_patient(images, 3, (0.8, 1.2), seed=0)
    assert all((a.pixels == b.pixels).all() and a.cells == b.cells for a, b in zip(fields, again, strict=True))
    other = compose_patient(images, 1, (0.8, 1.2), seed=1)[0]
    assert other.pixels.shape != fields[0].pixels.shape or (other.pixels != fields[0].pixels).any()


def test_patients_are_never_mixed(cells: Dataset) -> None:
    train = by_patient(cells, Subset.TRAIN)
    with pytest.raises(DatasetError, match="one patient"):
        compose_patient([*train["P00"], *train["P01"]], 1, (1.0, 1.0), seed=0)


def test_an_image_that_cannot_be_read_is_told(cells: Dataset, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    image = replace(by_patient(cells, Subset.TRAIN)["P00"][0], path=tmp_path / "broken.png")
    with pytest.raises(DatasetError, match=r"broken\.png"):
        cut_parts([image], np.random.default_rng(0))


def test_blocks_hold_nothing_of_a_cell(cells: Dataset) -> None:
    parts = cut_parts(by_patient(cells, Subset.TRAIN)["P01"], np.random.default_rng(0))
    assert {c.is_blast for c in parts.cells} == {True, False}
    assert len(parts.blocks) % 8 == 0
    darkest = min(rgb.min() for rgb in parts.blocks[:, :, :, 1])
    assert darkest > min(c.pixels[c.core][:, 1].min() for c in parts.cells)


@pytest.mark.parametrize("position", range(8))
def test_turning_moves_centre_core_and_pixels_together(position: int) -> None:
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[4, 25] = 255
    core = pixels[:, :, 0] > 0
    found = turn(CutCell(pixels, core, 25.0, 4.0, 3.0, True), position)
    x, y = int(found.center_x), int(found.center_y)
    assert found.pixels[y, x].tolist() == [255, 255, 255]
    assert found.core.sum() == 1
    assert found.core[y, x]


def test_labels_follow_the_published_rule() -> None:
    cells = (ComposedCell(260.0, 100.0, 40.0, True), ComposedCell(262.0, 100.0, 40.0, False), ComposedCell(100.0, 100.0, 20.0, False))
    field = ComposedField("f", "P", Subset.TRAIN, np.zeros((300, 600, 3), np.uint8), 1.0, cells)
    assert field.labels(Patch(1, 0, 0, 256)) == (True, True)
    assert field.labels(Patch(2, 262, 0, 256)) == (True, True)
    assert field.labels(Patch(3, 266, 0, 256)) == (False, True)
    assert field.labels(Patch(4, 300, 0, 256)) == (False, False)
