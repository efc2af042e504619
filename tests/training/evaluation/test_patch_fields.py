"""Tests of what is measured of whole fields."""

from __future__ import annotations

import numpy as np
import pytest

from services.common.phantom import CellKind, single_cell
from services.common.releases import File, Model, Patches, Role
from services.patching.grid import Patch
from training.datasets.composed_fields import ComposedCell, ComposedField
from training.datasets.dataset import Subset
from training.evaluation.patch_fields import scaled_grid
from training.releases.patch_location import SUPPRESSION_RADII, JudgedField, best_location, count_cells

HOW = Patches(
    network=Model(model="m", version=1, files=dict.fromkeys(Role, File(file="model.onnx", sha256="0" * 64))),
    side=128,
    patch_side=256,
    overlap=0.25,
    nominal_red_cell_radius=34.5,
    min_probability={"blast": 0.5, "other": 0.5},
    min_activation=0.0,
    suppression_radius=0.3,
)


def _field(*cells: ComposedCell) -> ComposedField:
    return ComposedField("f", "P", Subset.TEST, np.zeros((256, 256, 3), np.uint8), 1.0, cells)


def _judged(*places: tuple[int, int, int, float]) -> JudgedField:
    activations = np.full((1, 8, 8, 2), -5.0, np.float32)
    for row, column, label, value in places:
        activations[0, row, column, label] = value
    return JudgedField((Patch(1, 0, 0, 256),), np.zeros((1, 2)), activations)


BLAST, OTHER = ComposedCell(47.5, 47.5, 20.0, True), ComposedCell(207.5, 207.5, 20.0, False)


def test_cells_are_counted_one_to_one_and_by_their_class() -> None:
    judged = _judged((1, 1, 0, 6.0), (6, 6, 0, 4.0), (1, 6, 1, 3.0))
    assert count_cells([_field(BLAST, OTHER)], [judged], 0.2, 0.0).tolist() == [[2, 1, 3, 2]]
    assert count_cells([_field(BLAST, OTHER)], [judged], 0.2, 3.5).tolist() == [[2, 1, 2, 2]]
    assert count_cells([_field()], [judged], 0.2, 5.0).tolist() == [[0, 0, 1, 0]]


def test_the_threshold_parts_cells_from_what_is_none() -> None:
    fields = [_field(BLAST, OTHER), _field(BLAST)]
    judged = [_judged((1, 1, 0, 6.0), (6, 6, 1, 4.0), (1, 6, 1, 3.0)), _judged((1, 1, 0, 5.0), (5, 5, 1, 2.0))]
    radius, threshold = best_location(fields, judged)
    assert radius == min(SUPPRESSION_RADII)
    assert threshold == pytest.approx(4.0)
    assert count_cells(fields, judged, radius, threshold).sum(axis=0).tolist() == [3, 3, 3, 3]


def test_the_grid_follows_the_red_cells_and_stays_inside() -> None:
    plain = np.full((500, 700, 3), 230, np.uint8)
    assert {p.side for p in scaled_grid(plain, HOW)} == {256}
    assert max(p.x + p.side for p in scaled_grid(plain, HOW)) == 700
    small = np.full((100, 120, 3), 230, np.uint8)
    assert {p.side for p in scaled_grid(small, HOW)} == {100}
    assert scaled_grid(single_cell(1, CellKind.BLAST).image, HOW)
