"""Drawn fields are changed as their names say, truth included, and hits are counted one to one."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from services.common.phantom import CellKind, PhantomOptions, smear_field
from services.patching.cells import LocatedCell
from training.evaluation import drawn_fields
from training.evaluation.drawn_fields import DrawnField, count_hits, dimmed, framed, paired, pooled, shares, sweep, vignetted

OPTIONS = PhantomOptions(width=320, height=240, cells=3, cell_radius=20.0, kinds=(CellKind.BLAST,), label=False)


@pytest.fixture(scope="module")
def field() -> DrawnField:
    return DrawnField.of(smear_field(2, OPTIONS))


def _at(field: DrawnField, number: int) -> LocatedCell:
    rows, columns = np.nonzero(field.owners == number)
    return LocatedCell(float(columns.mean()), float(rows.mean()), 20.0, 0, 0, 1, 1, 0.9)


def test_a_hit_is_counted_once(field: DrawnField) -> None:
    cells = [_at(field, 1), _at(field, 1), _at(field, 3), LocatedCell(0.0, 0.0, 20.0, 0, 0, 1, 1, 0.9)]
    assert count_hits(cells, field) == [2, 4, 3]


def test_a_margin_moves_the_truth_with_the_picture(field: DrawnField) -> None:
    made = framed(field, 255)
    side = 32
    assert made.image.shape == (240 + 2 * side, 320 + 2 * side, 3)
    assert (made.image[:side] == 255).all()
    assert np.array_equal(made.image[side:-side, side:-side], field.image)
    assert np.array_equal(made.owners[side:-side, side:-side], field.owners)
    assert not made.owners[:side].any()


def test_light_falls_as_it_is_said(field: DrawnField) -> None:
    corner, middle = field.image[0, 0].mean(), field.image[120, 160].mean()
    assert vignetted(field).image[0, 0].mean() == pytest.approx(0.4 * corner, abs=1.5)
    assert vignetted(field).image[120, 160].mean() == pytest.approx(middle, abs=1.5)
    assert dimmed(field).image.mean() == pytest.approx(0.4 * field.image.mean(), abs=0.5)


def test_copies_touch_their_cells_and_are_cells_of_their_own() -> None:
    rows, columns = np.mgrid[:240, :320]
    owners = np.zeros((240, 320), np.int32)
    for number, (x, y) in enumerate(((60, 60), (60, 170), (200, 120)), start=1):
        owners[np.hypot(columns - x, rows - y) <= 20] = number
    image = np.full((240, 320, 3), 220, np.uint8)
    image[owners > 0] = (120, 60, 150)
    made = paired(DrawnField(image, owners, 3))
    assert made.count == 6
    for number in (1, 2, 3):
        row, column = _centre(made, number)
        assert _centre(made, number + 3) == pytest.approx((row, column + 1.85 * 20), abs=3)
        near = cv2.dilate((made.owners == number).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        assert (made.owners[near] == number + 3).any()
        assert (made.image[made.owners == number + 3] == (120, 60, 150)).all()


def _centre(field: DrawnField, number: int) -> tuple[float, float]:
    rows, columns = np.nonzero(field.owners == number)
    return float(rows.mean()), float(columns.mean())


def test_a_cell_beside_the_border_has_no_copy(field: DrawnField) -> None:
    owners = np.zeros_like(field.owners)
    owners[100:140, 270:318] = 1
    assert paired(replace(field, owners=owners, count=1)).count == 1


@pytest.mark.slow
def test_the_sweep_counts_every_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawn_fields, "SWEEP", {"as drawn": OPTIONS})
    monkeypatch.setattr(drawn_fields, "FIELD", OPTIONS)
    monkeypatch.setattr(drawn_fields, "BLASTS", OPTIONS)
    found = sweep(lambda _: [], 1)
    assert list(found) == ["as drawn", "margin, white", "margin, black", "vignette", "dim light, 0.4", "white cells that touch in pairs"]
    assert all(counts[:2] == [0, 0] and counts[2] >= 3 for counts in found.values())
    assert pooled({"a": [1, 2, 3], "b": [4, 5, 6]}) == [5, 7, 9]
    assert shares([3, 4, 6]) == ("0.500 (3/6)", "0.750 (3/4)")
