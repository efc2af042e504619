"""Tests of the comparison of runs: paired by seed and patient, the better side wins, what cannot be paired is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from training.errors import RecipeError
from training.evaluation.comparison import by_seed, by_vote, markdown, read_side, read_sides, table
from training.runs.arms import Arm

pytestmark = pytest.mark.slow

CELLS, PATIENTS = 400, 20


def _arm(seed: int, strength: float, noise: int = 0) -> Arm:
    labels = np.arange(CELLS) % 2
    chance = np.random.default_rng(100 * noise + seed).normal(0, 1, CELLS)
    keys = np.array([f"c{i:03d}" for i in range(CELLS)])
    patients = np.array([f"p{i % PATIENTS // 2:02d}" for i in range(CELLS)])
    return Arm("x", seed, keys, strength * (2 * labels - 1) + chance, labels, patients, ())


def test_the_better_side_wins_by_what_it_is_better() -> None:
    weak, strong = [_arm(s, 0.5) for s in (0, 1)], [_arm(s, 1.5) for s in (0, 1)]
    rows = table({"weak": weak, "strong": strong, "again": weak})
    assert [r.seeds for r in rows] == [(0, 1)] * 3
    assert rows[0].differences == {}
    better = rows[1].differences["AUC"]
    assert better.value == pytest.approx(rows[1].figures["AUC"].value - rows[0].figures["AUC"].value)
    assert better.low > 0.05
    assert all((d.value, d.low, d.high) == (0.0, 0.0, 0.0) for d in rows[2].differences.values())
    text = markdown(rows)
    assert text.count("\n") == 4
    assert "| strong | 0, 1 | " in text
    assert f"+{better.value:.4f} [" in text


def test_only_seeds_that_both_sides_have_are_paired() -> None:
    rows = table({"first": [_arm(0, 0.5), _arm(7, 3.0)], "second": [_arm(0, 0.5)]})
    assert rows[1].differences["AUC"].value == 0.0
    assert rows[0].figures["AUC"].value > rows[1].figures["AUC"].value + 0.05


def test_the_balanced_accuracy_is_that_of_the_sign_of_the_margin() -> None:
    arm = _arm(0, 1.0)
    right = (arm.margins >= 0) == (arm.is_blast == 1)
    expected = np.mean([right[arm.is_blast == k].mean() for k in (0, 1)])
    assert table({"one": [arm]})[0].figures["balanced accuracy"].value == pytest.approx(expected)


def test_what_cannot_be_compared_is_told() -> None:
    arm = _arm(0, 1.0)
    with pytest.raises(RecipeError, match="no seed that the first side has"):
        table({"a": [arm], "b": [_arm(1, 1.0)]})
    with pytest.raises(RecipeError, match="of one seed twice"):
        table({"a": [arm, arm]})
    with pytest.raises(RecipeError, match="did not predict the same cells"):
        table({"a": [arm], "b": [replace(arm, keys=arm.keys[::-1])]})
    with pytest.raises(RecipeError, match="other labels or patients"):
        table({"a": [arm], "b": [replace(arm, is_blast=1 - arm.is_blast)]})
    with pytest.raises(RecipeError, match="A side is NAME=RUN"):
        read_side("build/runs/x")
    with pytest.raises(RecipeError, match="is not the folder of a run"):
        read_side("x=/nowhere")
    with pytest.raises(RecipeError, match="No run fits"):
        read_side("x=/nowhere/a-*")


def test_a_real_difference_has_an_interval_above_zero_and_none_has_one_around_it() -> None:
    scratch = [_arm(s, 0.5) for s in range(3)]
    rows = table({"scratch": scratch, "better": [_arm(s, 1.5, noise=1) for s in range(3)], "alike": [_arm(s, 0.5, noise=1) for s in range(3)]})
    assert rows[1].differences["AUC"].low > 0
    alike = rows[2].differences["AUC"]
    assert alike.low < 0 < alike.high


def test_every_run_is_told_by_its_seed() -> None:
    lines = by_seed({"one": [_arm(0, 0.5), _arm(2, 0.5)], "other": [_arm(1, 3.0)]}).splitlines()
    assert lines[0] == "| AUC | seed 0 | seed 1 | seed 2 |"
    assert [c.strip() == "" for c in lines[2].split("|")[2:-1]] == [False, True, False]
    assert [c.strip() == "" for c in lines[3].split("|")[2:-1]] == [True, False, True]


def test_wildcards_name_runs_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr("training.evaluation.comparison.read_arm", lambda path, sources: read.append(path.name))
    for name in ("b-1", "b-0", "c-0"):
        (tmp_path / name).mkdir()
    read_side(f"x={tmp_path}/c-0,{tmp_path}/b-*")
    assert read == ["c-0", "b-0", "b-1"]
    with pytest.raises(RecipeError, match="Two sides are called 'x'"):
        read_sides([f"x={tmp_path}/c-0", f"x={tmp_path}/b-0"])


def test_votes_judge_instead_of_the_classifier() -> None:
    arm = _arm(0, 1.0)
    judged = by_vote(replace(arm, votes=np.asarray(arm.is_blast * 0.4 + 0.2, np.float64)))
    assert table({"one": [judged]})[0].figures["balanced accuracy"].value == 1.0
    with pytest.raises(RecipeError, match="holds no votes"):
        by_vote(arm)
