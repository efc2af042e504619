"""Resampled specimens: what a perfect, a blind and an indeterminate judge are said to find."""

from __future__ import annotations

import numpy as np
import pytest

from services.gateway.decision import Finding, ImageRule
from training.evaluation.reassurance import JudgedCells, findings_by_patient, table

RULE = ImageRule(((20, 1), (100, 3), (500, 12)), 100, 0.05, trained_on_lymphoblasts=True)
IS_BLAST = np.tile(np.arange(60) < 30, 3)
PATIENTS = np.repeat(["a", "b", "c"], 60)
NEVER = np.zeros(180, np.bool_)


def mean(cells: JudgedCells, count: int, share: float, finding: Finding) -> float:
    return float(np.mean([p[finding] for p in findings_by_patient(cells, RULE, count, share, specimens=50).values()]))


def test_a_perfect_judge_never_reassures_falsely() -> None:
    cells = JudgedCells(IS_BLAST, IS_BLAST, NEVER, PATIENTS)
    assert mean(cells, 100, 0.05, Finding.BLASTS_SUSPECTED) == 1.0
    assert mean(cells, 500, 0.0, Finding.NO_BLASTS_SEEN) == 1.0
    assert mean(cells, 20, 0.0, Finding.NO_BLASTS_SEEN) == 0.0
    assert mean(cells, 100, 0.01, Finding.NO_BLASTS_SEEN) == 1.0


def test_a_blind_judge_reassures_falsely_and_the_table_says_so() -> None:
    cells = JudgedCells(IS_BLAST, NEVER, NEVER, PATIENTS)
    assert mean(cells, 100, 0.2, Finding.NO_BLASTS_SEEN) == 1.0
    assert "| 100 | 20% | 0.0% | 0.0% | 100.0% | 100.0% (a) |" in table(cells, RULE)


def test_an_indeterminate_judge_never_reassures() -> None:
    cells = JudgedCells(IS_BLAST, NEVER, ~NEVER, PATIENTS)
    assert mean(cells, 500, 0.0, Finding.INDETERMINATE) == 1.0


def test_every_patient_counts_the_same_and_those_with_few_cells_do_not() -> None:
    few = np.arange(180) < 125
    cells = JudgedCells(IS_BLAST[few], IS_BLAST[few], NEVER[few], PATIENTS[few])
    found = findings_by_patient(cells, RULE, 100, 0.05, specimens=10)
    assert set(found) == {"a", "b"}
    assert all(sum(shares.values()) == pytest.approx(1.0) for shares in found.values())


def test_same_seed_same_specimens() -> None:
    suspected = np.random.default_rng(0).random(180) < 0.04
    cells = JudgedCells(IS_BLAST, suspected, NEVER, PATIENTS)
    assert findings_by_patient(cells, RULE, 100, 0.0) == findings_by_patient(cells, RULE, 100, 0.0)
