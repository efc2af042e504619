"""Answers are counted by release, finding and reason."""

from __future__ import annotations

from services.common import metrics
from services.common.admission.caller import Caller
from services.gateway.cells import JudgedCell, counts_of
from services.gateway.counting import MOST_SOURCES, OTHER, UNNAMED, Sources, count_image
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


def test_focus_and_score_of_judged_cells_are_kept_by_source() -> None:
    judged = JudgedCell(0, CellVerdict(0.8, (), True, False, ()), network_probability=0.8, focus_before=6.1)
    cells = [judged, JudgedCell(1, CellVerdict(0.5, (), False, True, ("TOO_BLURRED",)))]
    decided = decide_image("a", counts_of(cells), ImageRule(((100, 3),), 100, 0.05, True), phantom=False, single_cell=False, poor=())
    count_image("drift-1", decided, cells, "scanner-a")
    assert [metrics.CELL_FOCUS.labels("drift-1", "scanner-a")._sum.get(), _count(metrics.CELL_FOCUS, "drift-1", "scanner-a")] == [6.1, 1]
    assert metrics.CELL_BLAST_PROBABILITY.labels("drift-1", "scanner-a")._sum.get() == 0.8
    assert _count(metrics.CELL_FOCUS, "drift-1", UNNAMED) == 0


def test_only_so_many_sources_are_told_apart() -> None:
    sources = Sources()
    names = [sources.of(Caller(f"certificate {n}", f"laboratory-{n}")) for n in range(MOST_SOURCES + 2)]
    assert names == [*(f"laboratory-{n}" for n in range(MOST_SOURCES)), OTHER, OTHER]
    assert sources.of(Caller("certificate 3", "laboratory-3")) == "laboratory-3"
    assert sources.of(Caller("address 10.0.0.7")) == UNNAMED


def _count(histogram: object, *labels: str) -> float:
    return sum(bucket.get() for bucket in histogram.labels(*labels)._buckets)  # type: ignore[attr-defined]
