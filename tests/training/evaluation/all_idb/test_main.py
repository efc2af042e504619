"""Tests of the program that makes the table of ALL-IDB row by row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from training.errors import DatasetError, RecipeError
from training.evaluation.all_idb import main as program
from training.evaluation.all_idb.honest import NETWORKS
from training.evaluation.all_idb.honest_figures import HonestFigures
from training.evaluation.all_idb.main import Job, jobs, main, make
from training.evaluation.all_idb.measure import Result, RowFigures
from training.evaluation.all_idb.record import keep, read_record
from training.evaluation.all_idb.rows import ROWS
from training.learning.devices import Worker

CPU = Worker(torch.device("cpu"))
RESULT = Result(0.9, 0.9, 0.9, 0.9, 3, 4, 1, 2)
CUT = next(row for row in ROWS if row.cuts)
NAMES = [row.name for row in ROWS] + ["baselines"] + [f"honest-{network.name}" for network in NETWORKS] + ["frozen"]


def _figures(name: str, *, full: bool = False) -> RowFigures:
    return RowFigures(name, full, (RESULT,), {"colours alone": (RESULT,)})


def _fields_of(folder: Path) -> Path:
    """A folder of data, with tables that nothing reads."""
    (folder / "all_idb").mkdir(parents=True)
    for name in ("fields.csv", "all_idb2.csv"):
        (folder / "all_idb" / name).touch()
    return folder


@contextmanager
def _no_worker(device: str) -> Iterator[Worker]:
    """Nothing of the process is switched for the tests that follow."""
    yield CPU


class Made:
    """Jobs that note that they were done."""

    def __init__(self, *names: str, full: bool = False) -> None:
        self.names: list[str] = []
        self.jobs = {name: Job("published", name, partial(self._make, name, full), full) for name in names}

    def _make(self, name: str, full: bool) -> RowFigures:
        self.names.append(name)
        return _figures(name, full=full)


def test_rows_that_are_asked_for_are_made_and_kept(tmp_path: Path) -> None:
    path, made = tmp_path / "record.json", Made("a", "b", "c")
    make(["c", "a"], made.jobs, path)
    assert made.names == ["c", "a"]
    assert list(read_record(path)["published"]) == ["c", "a"]
    make([], made.jobs, path)
    assert made.names == ["c", "a", "b"], "all others, and no row twice"
    make(["a"], made.jobs, path)
    assert made.names == ["c", "a", "b"]


def test_a_row_that_fails_leaves_those_before_it(tmp_path: Path) -> None:
    path, made = tmp_path / "record.json", Made("a", "c")

    def failing() -> object:
        raise DatasetError("no such data")

    every = {"a": made.jobs["a"], "b": Job("published", "b", failing), "c": made.jobs["c"]}
    with pytest.raises(DatasetError):
        make([], every, path)
    assert list(read_record(path)["published"]) == ["a"]
    assert made.names == ["a"]


def test_the_full_form_takes_the_place_of_the_short_one_and_not_the_reverse(tmp_path: Path) -> None:
    path, short, full = tmp_path / "record.json", Made("a"), Made("a", full=True)
    make([], short.jobs, path)
    make([], full.jobs, path)
    assert (short.names, full.names) == (["a"], ["a"])
    assert read_record(path)["published"]["a"]["full"] is True
    make([], full.jobs, path)
    make([], short.jobs, path)
    assert (short.names, full.names) == (["a"], ["a"])


def test_an_unknown_row_lists_all_before_anything_is_made(tmp_path: Path) -> None:
    made = Made("a", "b")
    with pytest.raises(RecipeError, match="There is no row x, y; there are a, b"):
        make(["a", "x", "y"], made.jobs, tmp_path / "record.json")
    assert not made.names
    assert not (tmp_path / "record.json").exists()


@pytest.mark.parametrize("full", [True, False])
def test_every_row_has_a_job_of_its_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: bool) -> None:
    begun: list[tuple[Any, ...]] = []
    monkeypatch.setattr(program, "train_row", lambda row, *_, full: begun.append(("train", row.name, full)))
    monkeypatch.setattr(program, "measure_row", lambda row, *_, full: begun.append(("measure", row.name, full)))
    monkeypatch.setattr(program, "train_honestly", lambda network, *_: begun.append(("train", network.name)))
    monkeypatch.setattr(program, "measure_network", lambda network, *_: begun.append(("measure", network.name)))
    monkeypatch.setattr(program, "measure_baselines", lambda *_: begun.append(("baselines",)))
    monkeypatch.setattr(program, "frozen_rows", lambda *_: begun.append(("frozen",)))
    cut = SimpleNamespace(folders={})
    places = {"aml_cells": tmp_path, "fields": tmp_path, "cut": tmp_path, "packs": tmp_path}
    data: Any = SimpleNamespace(cells=lambda: cut, crops=lambda: cut, official_crops=lambda: cut, **places)
    store: Any = SimpleNamespace()
    every = jobs(data, tmp_path / "runs", store, CPU, full=full)
    assert list(every) == NAMES
    entries = [(job.section, job.name) for job in every.values()]
    assert len(set(entries)) == len(entries)
    for row in ROWS:
        assert every[row.name].full == (full and bool(row.cuts)), "a row that is never cut has one form"
    for job in every.values():
        job.make()
    wanted: list[tuple[Any, ...]] = [(what, row.name, full) for row in ROWS for what in ("train", "measure")]
    wanted += [("baselines",), *((what, network.name) for network in NETWORKS for what in ("train", "measure")), ("frozen",)]
    assert begun == wanted


def test_the_record_is_printed_without_any_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "record.json"
    keep(path, "published", CUT.name, _figures(CUT.name))
    before = path.read_bytes()
    main(["--print", "--record", str(path)])
    printed = capsys.readouterr().out
    assert f"| {CUT.system} | {CUT.protocol} | not found | 90.00 |" in printed
    assert path.read_bytes() == before
    main(["--print", "--record", str(tmp_path / "none.json")])
    assert CUT.system not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "failed: Name the folder of the data with --data, or print what is recorded with --print"),
        (["--data", "."], r"failed: all_idb lacks fields.csv and all_idb2.csv: name the folder that holds all_idb/ with --data"),
        (["--print", "--record", "damaged.json"], "failed: damaged.json is not a record"),
    ],
)
def test_what_a_user_can_put_right_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(program, "start_worker", _no_worker)
    Path("damaged.json").write_text("{", encoding="utf-8")
    with pytest.raises(SystemExit, match=message):
        main(arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["damaged.json"], "nothing is written"


def test_a_row_that_does_not_exist_lists_all_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fields_of(tmp_path / "data")
    monkeypatch.setattr(program, "start_worker", _no_worker)
    places = ["--record", str(tmp_path / "record.json"), "--cache", str(tmp_path / "cache"), "--runs", str(tmp_path / "runs")]
    with pytest.raises(SystemExit) as ended:
        main(["--data", str(tmp_path / "data"), "--only", "s9-unknown", *places])
    assert str(ended.value) == f"failed: There is no row s9-unknown; there are {', '.join(NAMES)}."


def test_what_is_recorded_is_printed_and_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _fields_of(tmp_path / "data")
    path = tmp_path / "record.json"
    for row in ROWS:
        keep(path, "published", row.name, _figures(row.name))
    keep(path, "baselines", "all", {})
    for network in NETWORKS:
        keep(path, "honest", network.name, HonestFigures(network.name, ()))
    keep(path, "frozen", "all", {"rows": [], "linear_layer": [], "left_out_releases": []})
    for name in ("train_row", "measure_row", "train_honestly", "measure_network", "measure_baselines", "frozen_rows"):
        monkeypatch.setattr(program, name, lambda *_, **__: pytest.fail("a row is made again"))
    monkeypatch.setattr(program, "start_worker", _no_worker)
    monkeypatch.setattr(program, "all_tables", lambda record: f"{len(record['published'])} rows")
    before = path.read_bytes()
    main(["--data", str(tmp_path / "data"), "--record", str(path), "--cache", str(tmp_path / "cache")])
    assert capsys.readouterr().out == f"{len(ROWS)} rows\n"
    assert path.read_bytes() == before
