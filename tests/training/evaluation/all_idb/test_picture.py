"""Tests of the picture of the table of ALL-IDB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from training.errors import RecipeError
from training.evaluation.all_idb.honest import NETWORKS
from training.evaluation.all_idb.picture import draw
from training.evaluation.all_idb.protocols import FIGURES
from training.evaluation.all_idb.rows import ROWS

RESULT = {"accuracy": 0.9, "auc": 0.95, "canon_accuracy": 0.8, "canon_auc": 0.85}
WITHOUT_CANON = {**RESULT, "canon_auc": None}


def _honest(value: float) -> list[dict[str, Any]]:
    return [{"title": f.title, "auc": {"value": value, "low": value - 0.1, "high": value + 0.1}} for f in FIGURES]


def _record() -> dict[str, Any]:
    baselines = {"camera alone": [RESULT], "colours alone": [RESULT]}
    return {
        "published": {
            ROWS[0].name: {"network": [RESULT], "baselines": baselines},
            ROWS[1].name: {"network": [WITHOUT_CANON], "baselines": baselines},
        },
        "honest": {NETWORKS[0].name: {"figures": _honest(0.8)}},
        "baselines": {"all": {"colours alone": {"figures": _honest(0.7)}, "size alone": {"figures": _honest(0.75)}}},
    }


def test_every_row_and_every_figure_is_named(tmp_path: Path) -> None:
    draw(_record(), tmp_path / "picture.svg")
    drawn = (tmp_path / "picture.svg").read_text(encoding="utf-8")
    for words in (ROWS[0].system, ROWS[1].system, NETWORKS[0].title, "the camera alone", f"{FIGURES[0].title}: size alone"):
        assert f"<!-- {words}" in drawn, words
    assert ROWS[2].system not in drawn


def test_the_same_record_gives_the_same_file(tmp_path: Path) -> None:
    draw(_record(), tmp_path / "a.svg")
    draw(_record(), tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_a_record_without_a_section_is_refused(tmp_path: Path) -> None:
    record = _record()
    del record["honest"]
    with pytest.raises(RecipeError, match="no honest; run `dl4all study all-idb"):
        draw(record, tmp_path / "picture.svg")
    assert not list(tmp_path.iterdir())
