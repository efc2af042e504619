"""Tests of the tables of ALL-IDB, printed from a record made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from training.evaluation.all_idb.frozen import FrozenFigures, FrozenRow, PapersFigures, PooledFigure, SmudgedCells
from training.evaluation.all_idb.honest_figures import HonestFigure, HonestFigures
from training.evaluation.all_idb.measure import Result, RowFigures
from training.evaluation.all_idb.protocols import FIGURES
from training.evaluation.all_idb.record import Record, keep, read_record
from training.evaluation.all_idb.rows import ROWS, Row
from training.evaluation.all_idb.table import all_tables, frozen_table, honest_table, published_table, seeds_table
from training.metrics.by_patient import Interval

NAN = float("nan")
COLOURS_ALONE = (0.6, 0.7, 0.8, 0.5, 0.4)
SIZE_ALONE = (0.5, 0.9, 0.8, 0.2, 0.4)


def _named(name: str) -> Row:
    (row,) = [row for row in ROWS if row.name == name]
    return row


def _results(*figures: tuple[float, float]) -> tuple[Result, ...]:
    return tuple(Result(accuracy, 0.9, accuracy, canon, 5, 5, 2, 2) for accuracy, canon in figures)


def _baselines(colours: float, size: float) -> dict[str, tuple[Result, ...]]:
    return {"camera alone": _results((0.81, 0.5)), "colours alone": _results((0.82, colours)), "size alone": _results((0.83, size))}


def _figures(values: tuple[float, ...]) -> tuple[HonestFigure, ...]:
    return tuple(HonestFigure(f.title, Interval(v, v - 0.1, v + 0.1), (v, v), 7, 8) for f, v in zip(FIGURES, values, strict=True))


def _frozen(values: tuple[float, ...]) -> FrozenFigures:
    honest = tuple(PooledFigure(f.protocol, f.title, Interval(v, v, v), 3, 4) for f, v in zip(FIGURES, values, strict=True))
    row = FrozenRow("plain-1", "nearest neighbour", PapersFigures(19, 2, 0.91234, 0.01, 0.95, NAN), honest, SmudgedCells(9, 4), 0, 0, 0)
    layer = PooledFigure("linear-layer", "learned on AML cells, ALL-IDB2", Interval(0.66, 0.6, 0.7), 11, 12)
    return FrozenFigures((row,), (layer,), ())


def _recorded(folder: Path, *entries: tuple[str, str, Any]) -> Record:
    for section, name, figures in entries:
        keep(folder / "record.json", section, name, figures)
    return read_record(folder / "record.json")


def _baseline_entry() -> tuple[str, str, Any]:
    by_name = {
        "colours alone": HonestFigures("colours alone", _figures(COLOURS_ALONE)),
        "size alone": HonestFigures("size alone", _figures(SIZE_ALONE)),
    }
    return "baselines", "all", by_name


def _cells(table: str, starts: str) -> list[str]:
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {starts}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_an_empty_record_prints_heads_alone(tmp_path: Path) -> None:
    printed = all_tables(read_record(tmp_path / "none.json"))
    assert printed.startswith("| system | protocol | published, %")
    assert not [row for row in ROWS if row.system in printed]
    assert frozen_table({}) == ""


def test_a_row_has_its_numbers_and_says_what_is_cut(tmp_path: Path) -> None:
    row = _named("s1-sharpened")
    figures = RowFigures(row.name, False, _results((0.9, 0.7), (0.94, 0.9)), _baselines(0.7, 0.6), {"focus threshold": (7.0, 7.5)})
    system, protocol, published, network, camera, colours, size, canon, rival, beats, notes = _cells(
        published_table(_recorded(tmp_path, ("published", row.name, figures))), row.system
    )
    assert (system, protocol, published) == (row.system, "10 random halves", "not found")
    assert network == "92.00 +- 2.00"
    assert (camera, colours, size) == ("81.00", "82.00", "83.00")
    assert (canon, rival, beats) == ("0.800", "colours alone: 0.700", "yes")
    assert row.differs in notes
    assert f"cut: {row.cut}" in notes
    assert "focus threshold: 7.25 +- 0.25" in notes


def test_the_full_form_has_nothing_cut(tmp_path: Path) -> None:
    row = _named("s1-sharpened")
    record = _recorded(tmp_path, ("published", row.name, RowFigures(row.name, True, _results((0.9, 0.7)), _baselines(0.7, 0.6))))
    assert "cut" not in published_table(record)


def test_a_row_that_is_never_cut_says_so_and_what_was_published(tmp_path: Path) -> None:
    row = ROWS[0]
    record = _recorded(tmp_path, ("published", row.name, RowFigures(row.name, False, _results((0.9, 0.7)), _baselines(0.7, 0.6))))
    cells = _cells(published_table(record), row.system)
    assert cells[2] == row.published
    assert cells[-1] == (row.differs or "nothing")


@pytest.mark.parametrize(
    ("network", "colours", "size", "rival", "beats"),
    [
        (0.8, 0.7, 0.6, "colours alone: 0.700", "yes"),
        (0.8, 0.7, 0.8, "size alone: 0.800", "no"),
        (0.5, 0.7, 0.8, "size alone: 0.800", "no"),
        (NAN, 0.7, 0.6, "colours alone: 0.700", "-"),
        (0.8, NAN, 0.6, "size alone: 0.600", "yes"),
        (0.8, NAN, NAN, "-", "-"),
    ],
)
def test_a_network_is_held_against_the_best_of_colours_and_size(
    tmp_path: Path, network: float, colours: float, size: float, rival: str, beats: str
) -> None:
    row = ROWS[0]
    record = _recorded(tmp_path, ("published", row.name, RowFigures(row.name, True, _results((0.9, network)), _baselines(colours, size))))
    assert _cells(published_table(record), row.system)[-3:-1] == [rival, beats]


def test_repetitions_without_the_canon_do_not_count_there(tmp_path: Path) -> None:
    row = ROWS[0]
    record = _recorded(tmp_path, ("published", row.name, RowFigures(row.name, True, _results((0.9, NAN), (0.9, 0.6)), _baselines(0.5, 0.5))))
    assert _cells(published_table(record), row.system)[7] == "0.600"


def test_patches_have_no_size_and_shares_are_in_percent(tmp_path: Path) -> None:
    row = _named("s4-fields")
    baselines = _baselines(0.7, 0.6)
    del baselines["size alone"]
    record = _recorded(tmp_path, ("published", row.name, RowFigures(row.name, True, _results((0.9, 0.7)), baselines, {"label accuracy": (0.8, 0.9)})))
    cells = _cells(published_table(record), "4 ALL-IDB Patches | by field")
    assert cells[6] == "-"
    assert "label accuracy: 85.00 +- 5.00 %" in cells[-1]


def test_rows_stand_in_their_order(tmp_path: Path) -> None:
    names = [row.name for row in ROWS]
    entries = [("published", name, RowFigures(name, True, _results((0.9, 0.7)), _baselines(0.7, 0.6))) for name in reversed(names)]
    lines = published_table(_recorded(tmp_path, *entries)).splitlines()[2:]
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines] == [row.system for row in ROWS]


def test_a_network_below_the_best_confounder_is_told(tmp_path: Path) -> None:
    honest = HonestFigures("lite0-imagenet", _figures((0.65, 0.85, 0.8, 0.5, 0.41)), smudged=6, smudged_called_blast=2)
    table = honest_table(_recorded(tmp_path, _baseline_entry(), ("honest", "lite0-imagenet", honest)))
    heads = _cells(table, "|")
    assert heads[1:] == [*(f"{f.title} (7 blasts, 8 normal)" for f in FIGURES), "smudged cells called blasts"]
    assert _cells(table, "size alone")[1:3] == ["0.500 [0.400, 0.600]", "0.900 [0.800, 1.000]"]
    assert _cells(table, "Lite0 from ImageNet, trained, 2 seeds")[1:] == [
        "0.650 [0.550, 0.750]",
        "0.850 [0.750, 0.950], does not beat size alone",
        "0.800 [0.700, 0.900], does not beat colours alone",
        "0.500 [0.400, 0.600], does not beat colours alone",
        "0.410 [0.310, 0.510]",
        "2 of 6",
    ]


def test_frozen_features_stand_beside_the_networks(tmp_path: Path) -> None:
    record = _recorded(tmp_path, _baseline_entry(), ("frozen", "all", _frozen((0.9, 0.9, 0.9, 0.4, 0.9))))
    cells = _cells(honest_table(record), "plain-1, frozen, nearest neighbour")
    assert [" does not beat " in cell for cell in cells[1:6]] == [False, True, False, True, False]
    assert cells[2].endswith("does not beat size alone")
    assert cells[6] == "4 of 9"
    table = frozen_table(record)
    assert _cells(table, "plain-1")[2:] == ["91.23 +- 1.00", "0.950", "-", "2"]
    assert _cells(table, "learned on AML cells, ALL-IDB2")[1:] == ["0.660 [0.600, 0.700]", "11", "12"]


@pytest.mark.parametrize("what", ["frozen", "honest", "baselines"])
def test_each_part_prints_without_the_others(tmp_path: Path, what: str) -> None:
    values = (0.91, 0.92, 0.93, 0.94, 0.95)
    entries = {
        "frozen": ("frozen", "all", _frozen(values)),
        "honest": ("honest", "allnet-adp", HonestFigures("allnet-adp", _figures(values))),
        "baselines": ("baselines", "all", {"size alone": HonestFigures("size alone", _figures(values))}),
    }
    printed = all_tables(_recorded(tmp_path, entries[what]))
    assert all(f"{value:.3f} [" in printed for value in values)
    assert "does not beat" not in printed
    assert all(f"{figure.title} (" in printed for figure in FIGURES)


def test_a_figure_that_is_not_defined_is_a_dash(tmp_path: Path) -> None:
    def one_missing(value: float) -> tuple[HonestFigure, ...]:
        first, *others = _figures((value,) * 5)
        return (HonestFigure(first.title, Interval(NAN, NAN, NAN), (NAN, 0.5), 7, 0), *others)

    record = _recorded(
        tmp_path,
        ("baselines", "all", {"size alone": HonestFigures("size alone", one_missing(0.6))}),
        ("honest", "allnet-adp", HonestFigures("allnet-adp", one_missing(0.7))),
    )
    assert _cells(honest_table(record), "ALLNet")[1:3] == ["-", "0.700 [0.600, 0.800]"]
    assert _cells(seeds_table(record), "ALLNet")[1:3] == ["-, 0.500", "0.700, 0.700"]


def test_every_seed_is_told(tmp_path: Path) -> None:
    figures = tuple(HonestFigure(f.title, Interval(0.7, 0.6, 0.8), (0.6, 0.7, 0.8), 7, 8) for f in FIGURES)
    record = _recorded(tmp_path, ("honest", "resnet-scratch", HonestFigures("resnet-scratch", figures)))
    assert _cells(seeds_table(record), "narrow ResNet18 from scratch")[1:] == ["0.600, 0.700, 0.800"] * 5


def test_every_line_of_a_table_has_as_many_cells(tmp_path: Path) -> None:
    values = (0.91, 0.92, 0.93, 0.94, 0.95)
    record = _recorded(
        tmp_path,
        *(("published", row.name, RowFigures(row.name, False, _results((0.9, 0.7)), _baselines(0.7, 0.6))) for row in ROWS),
        _baseline_entry(),
        ("honest", "allnet-adp", HonestFigures("allnet-adp", _figures(values))),
        ("frozen", "all", _frozen(values)),
    )
    for table in all_tables(record).split("\n\n"):
        assert len({line.count("|") for line in table.splitlines()}) == 1, table
