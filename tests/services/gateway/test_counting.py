"""Answers are counted by release, finding and reason."""

from __future__ import annotations

from services.common import metrics
from services.gateway.cells import JudgedCell, counts_of
from services.gateway.counting import count_image
from services.gateway.decision import ImageRule, decide_image
from services.gateway.fusion import CellVerdict


def _value(counter: object, *labels: str) -> float:
    return counter.labels(*labels)._value.get()  # type: ignore[attr-defined,no-any-return]


def test_an_image_is_counted_with_its_cells_and_why_they_are_indeterminate() -> None:
    cells = [
        JudgedCell(0, CellVerdict(0.5, (), False, True, ("POOR_FOCUS",))),
        JudgedCell(1, CellVerdict(0.1, (), False, False, ("CELL_AT_BORDER",))),
    ]
    decided = decide_image("a", counts_of(cells), ImageRule(((100, 3),), 100, 0.05, True), phantom=False, single_cell=False, poor=())
    count_image("counted-1", decided, cells)
    assert _value(metrics.FINDINGS, "counted-1", "INDETERMINATE") == 1
    assert _value(metrics.FINDING_REASONS, "counted-1", "TOO_FEW_CELLS") == 1
    assert _value(metrics.ABSTENTIONS, "counted-1", "POOR_FOCUS") == 1
    assert _value(metrics.ABSTENTIONS, "counted-1", "CELL_AT_BORDER") == 0, "it was judged all the same"
    assert [_value(metrics.CELLS, "counted-1", v) for v in ("suspected", "indeterminate", "not_suspected")] == [0, 1, 1]
