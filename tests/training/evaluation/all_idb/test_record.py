"""Tests of the record of the table of ALL-IDB."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from training.errors import ArrayFileError
from training.evaluation.all_idb.honest_figures import HonestFigure, HonestFigures
from training.evaluation.all_idb.measure import Result, RowFigures
from training.evaluation.all_idb.record import keep, read_record
from training.metrics.by_patient import Interval

NAN = float("nan")
RESULT = Result(0.9876543, 0.75, NAN, NAN, 3, 4, 0, 2)
ROW = RowFigures("a", True, (RESULT, RESULT), {"camera alone": (RESULT,)}, {"focus threshold": (7.0, 7.25)})


def test_nothing_is_recorded_without_a_file(tmp_path: Path) -> None:
    assert read_record(tmp_path / "none.json") == {}


def test_other_rows_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "new" / "record.json"
    keep(path, "published", "a", ROW)
    keep(path, "honest", "a", HonestFigures("a", ()))
    before = read_record(path)
    keep(path, "published", "b", RowFigures("b", False, (RESULT,), {}))
    after = read_record(path)
    assert after["published"].pop("b")["full"] is False
    assert after == before
    keep(path, "published", "a", RowFigures("a", False, (), {}))
    assert read_record(path)["published"]["a"]["network"] == []
    assert read_record(path)["honest"] == before["honest"]


def test_figures_are_rounded_and_what_is_not_defined_is_null(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    keep(path, "published", "a", ROW)
    text = path.read_text(encoding="utf-8")
    assert "NaN" not in text
    first = json.loads(text)["published"]["a"]["network"][0]
    assert first == {
        "accuracy": 0.98765,
        "auc": 0.75,
        "canon_accuracy": None,
        "canon_auc": None,
        "blasts": 3,
        "normals": 4,
        "canon_blasts": 0,
        "canon_normals": 2,
    }
    assert json.loads(text)["published"]["a"]["further"] == {"focus threshold": [7.0, 7.25]}


def test_several_figures_by_name_are_one_entry(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    figures = HonestFigures("size alone", (HonestFigure("title", Interval(0.5, NAN, NAN), (0.5,), 2, 3),))
    keep(path, "baselines", "all", {"size alone": figures})
    (figure,) = read_record(path)["baselines"]["all"]["size alone"]["figures"]
    assert figure["auc"] == {"value": 0.5, "low": None, "high": None}
    assert (figure["by_seed"], figure["blasts"], figure["normals"]) == ([0.5], 2, 3)


@pytest.mark.parametrize("content", [b'{"published": {', b"\xff\xfe", b"[1, 2]", b'{"published": 3}'])
def test_a_damaged_file_is_refused_with_its_path_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(content)
    with pytest.raises(ArrayFileError, match=r"record\.json is not a record"):
        read_record(path)
    with pytest.raises(ArrayFileError, match=r"record\.json is not a record"):
        keep(path, "published", "a", ROW)
    assert path.read_bytes() == content
