from pathlib import Path

from services.patching.cells import LocatedCell
from training.datasets.fields import Field, TruthBox
from training.evaluation.location import match


def located(x, y):
    return LocatedCell(x, y, 10, 0, 0, 1, 1, 1.0)


def test_each_truth_box_takes_one_located_cell():
    field = Field(Path("f"), (TruthBox(0, 0, 10, 10), TruthBox(5, 5, 20, 20)))
    assert match([located(7, 7), located(8, 8)], field) == 2
    assert match([located(7, 7)], field) == 1
    assert match([located(30, 30)], field) == 0
