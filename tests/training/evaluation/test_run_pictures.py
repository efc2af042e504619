"""Tests of the pictures of runs: every side has its colour, patients with too few cells are left out, the file is the same every time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from training.evaluation.run_pictures import draw_auc_by_patient, draw_curves
from training.files.pictures import COLOURS
from training.runs.arms import Arm


@pytest.fixture(autouse=True)
def _words_as_text() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none"}):
        yield


def _arm(system: str, seed: int) -> Arm:
    patients = np.array([f"p{i // 20}" for i in range(100)])
    is_blast = np.where(patients == "p3", 0, np.arange(100) % 2)
    history = tuple({"epoch": float(e), "loss": 1.0 / e} for e in range(1, 5))
    return Arm(system, seed, np.arange(100).astype(str), np.random.default_rng(seed).normal(size=100), is_blast, patients, (history, history))


def test_curves_have_a_panel_per_recipe_and_a_colour_per_side(tmp_path: Path) -> None:
    sides = {"with": [_arm("allnet", 0), _arm("allnet", 1)], "without": [_arm("allnet", 0)], "other": [_arm("dss", 0)]}
    draw_curves(sides, tmp_path / "a.svg")
    draw_curves(sides, tmp_path / "b.svg")
    text = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert text == (tmp_path / "b.svg").read_text(encoding="utf-8")
    assert all(f">{word}<" in text for word in ("with", "without", "other", "allnet", "dss"))
    lines = [text.count(f"stroke: {colour}") for colour in COLOURS[:3]]
    assert lines == [2 * 2 + 1, 2 + 1, 2 + 1]


def test_many_sides_are_all_drawn(tmp_path: Path) -> None:
    sides = {f"side {i}": [_arm("allnet", 0)] for i in range(10)}
    draw_curves(sides, tmp_path / "a.svg")
    draw_auc_by_patient(sides, tmp_path / "b.svg")
    for name in ("a.svg", "b.svg"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert all(f">side {i}<" in text for i in range(10))


def test_patients_without_blasts_are_not_drawn(tmp_path: Path) -> None:
    draw_auc_by_patient({"one": [_arm("dss", 0), _arm("dss", 1)], "other": [_arm("allnet", 0)]}, tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert ">p4<" in text
    assert ">p3<" not in text
