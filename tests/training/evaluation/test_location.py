from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from services.common.phantom import PhantomOptions, smear_field
from services.patching.cells import LocatedCell
from training.datasets.fields import Field, TruthBox
from training.datasets.location_review import REVIEWED, Verdict, verdict
from training.evaluation import drawn_fields
from training.evaluation.location import Located, average_precision, locate_fields, match, score_causes, score_located, score_sweep

pytestmark = pytest.mark.slow


def located(x, y):
    return LocatedCell(x, y, 10, 0, 0, 1, 1, 1.0)


def test_each_truth_box_takes_one_located_cell():
    field = Field(Path("f"), (TruthBox(0, 0, 10, 10), TruthBox(5, 5, 20, 20)))
    assert match([located(7, 7), located(8, 8)], field) == 2
    assert match([located(7, 7)], field) == 1
    assert match([located(30, 30)], field) == 0


def test_average_precision_by_hand():
    confidences, correct = np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, True, False])
    assert average_precision(confidences, correct, 2) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(confidences, correct, 4) == pytest.approx((1 + 2 / 3) / 4)
    assert average_precision(np.zeros(0), np.zeros(0, bool), 3) == 0


def test_cells_that_the_annotation_leaves_out_are_counted_apart():
    seen = (Verdict.UNKNOWN, Verdict.UNANNOTATED, Verdict.SMUDGE)
    found = Located(np.array([0.95, 0.6, 0.4]), np.array([True, False, False]), seen, 2)
    table = score_located(found)
    assert "| 0 | 0.500 (1/2) | 0.333 (1/3) | 0.500 (1/2) |" in table
    assert "| 0.5 | 0.500 (1/2) | 0.500 (1/2) | 1.000 (1/1) |" in table
    assert "| 0.9 | 0.500 (1/2) | 1.000 (1/1) | 1.000 (1/1) |" in table
    assert score_causes(found).splitlines()[-3:] == [f"| {Verdict.UNANNOTATED} | 1 |", f"| {Verdict.SMUDGE} | 1 |", "| missed boxes | 1 |"]


def test_a_verdict_holds_near_its_position():
    (x, y, seen), *_ = REVIEWED["E-4B_0501"]
    assert verdict("E-4B_0501", located(x + 20, y)) is seen is Verdict.UNANNOTATED
    assert verdict("E-4B_0501", located(x + 200, y)) is verdict("none", located(x, y)) is Verdict.UNKNOWN


def test_fields_are_located_and_matched(tmp_path):
    phantom = smear_field(3, PhantomOptions(width=640, height=480, cells=4, cell_radius=28.0))
    Image.fromarray(phantom.image).save(tmp_path / "f.png")
    boxes = [TruthBox(c.center_x - c.radius, c.center_y - c.radius, c.center_x + c.radius, c.center_y + c.radius) for c in phantom.cells]
    found = locate_fields([Field(tmp_path / "f.png", tuple(boxes[1:]))])
    assert found.truth == 3
    assert found.correct.sum() == 3
    assert found.verdicts.count(Verdict.UNKNOWN) == found.confidences.size == 4


def test_the_sweep_of_phantoms_finds_the_cells(monkeypatch):
    chosen = ("blur, sigma 7 px", "stain 0.6", "no red cells")
    monkeypatch.setattr(drawn_fields, "SWEEP", {name: drawn_fields.SWEEP[name] for name in chosen})
    rows = score_sweep(1).splitlines()[2:]
    assert len(rows) == len(chosen) + 6
    assert all("1.000 (10/10) | 1.000 (10/10)" in row for row in rows[:3])
    assert rows[-1].startswith("| **pooled** |")
