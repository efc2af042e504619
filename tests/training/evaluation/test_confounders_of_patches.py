"""Tests of what tells composed patches apart without looking at a cell."""

from __future__ import annotations

import numpy as np
import pytest

from tests.training.small import patch_pack
from training.datasets.composed_fields import ComposedCell, ComposedField
from training.datasets.dataset import Subset
from training.evaluation.confounders import report_patches, report_seams, ring_around

pytestmark = pytest.mark.slow


def test_colours_that_tell_a_label_are_found() -> None:
    found = report_patches(patch_pack())
    assert found["colours of the patch, blast present"].value > 0.95
    assert len(found) == 6


def _field(patient: str, light: int, generator: np.random.Generator) -> ComposedField:
    pixels = generator.integers(light, light + 20, (200, 200, 3)).astype(np.uint8)
    cells = (ComposedCell(60, 60, 20, light > 150), ComposedCell(140, 60, 20, light > 150))
    return ComposedField(patient, patient, Subset.CALIBRATION, pixels, 1.0, cells)


def test_a_seam_that_tells_a_blast_is_found() -> None:
    generator = np.random.default_rng(0)
    fields = [_field(f"P{i}", light, generator) for i in range(6) for light in (100, 200)]
    assert report_seams(fields)["ring around a cell, blast"].value == pytest.approx(1.0)


def test_a_ring_holds_nothing_of_a_cell() -> None:
    pixels = np.zeros((200, 200, 3), np.uint8)
    rows, columns = np.mgrid[:200, :200]
    cells = (ComposedCell(60, 60, 20, True), ComposedCell(100, 60, 20, False))
    for cell in cells:
        pixels[np.hypot(rows - cell.y, columns - cell.x) <= cell.radius] = 255
    field = ComposedField("P", "P", Subset.TEST, pixels, 1.0, cells)
    ring = ring_around(field, cells[0])
    assert len(ring) > 200
    assert not ring.any()
