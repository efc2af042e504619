"""How locators are compared: which point takes which box, what boxes without a point hold, and the table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from services.patching.cells import LocatedCell
from services.patching.locator_maps import CHANNELS, Kind
from training.architectures.locator import LocatorNetwork
from training.datasets.all_idb_fields import Field, Point
from training.datasets.all_idb_unmarked import UNMARKED
from training.datasets.fields import TruthBox
from training.evaluation import locators
from training.evaluation.locators import LEARNED, STAIN, drawn_table, match_points, network_of, score_boxes, score_masks, table
from training.location.annotated import Annotated, Mark
from training.location.sources import BCCD, SOURCES, WBC

FIELD = Field("Im001_1", Path("Im001_1.jpg"), True, "olympus", "s01", "", 1712, 1368, "olympus-1", False)


def _cell(x: float, y: float, radius: float = 40.0) -> LocatedCell:
    return LocatedCell(x, y, radius, round(x - radius), round(y - radius), round(2 * radius), round(2 * radius), 0.9)


def test_a_box_is_of_the_cell_before_the_platelet_beside_it() -> None:
    points = [Point("Im001_1", 705, 700, "platelet_or_debris"), Point("Im001_1", 730, 700, "lymphoblast")]
    found = match_points([_cell(700, 700)], FIELD, points)
    assert (found.found["blast"], found.found["no_cell"]) == (1, 0)
    assert (found.there["blast"], found.there["no_cell"]) == (1, 1)
    assert found.missed == ()


def test_every_box_is_taken_once_and_the_rest_is_missed() -> None:
    points = [Point("Im001_1", 690, 700, "lymphoblast"), Point("Im001_1", 710, 700, "lymphoblast")]
    found = match_points([_cell(700, 700)], FIELD, points)
    assert found.found["blast"] == 1
    assert len(found.missed) == 1


def test_a_box_without_a_point_holds_what_was_seen_there() -> None:
    x, y, _ = next(entry for entry in UNMARKED["Im001_1"] if entry[2] is Kind.SMUDGED)
    found = match_points([_cell(x + 10, y), _cell(1000, 900)], FIELD, [])
    assert sum(found.boxes.values()) == 2
    assert found.empty == (("Im001_1", 1000, 900),)


def test_a_lymphoblast_at_the_border_counts_and_another_cell_does_not() -> None:
    points = [Point("Im001_1", 5, 700, "lymphoblast"), Point("Im001_1", 700, 5, "lymphocyte")]
    found = match_points([], FIELD, points)
    assert (found.there["blast"], found.there["unknown"]) == (1, 1)


def test_boxes_and_masks_are_scored_by_the_network_of_their_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.full((120, 120, 3), 220, np.uint8)
    rows, columns = np.ogrid[:120, :120]
    disk = (rows - 60) ** 2 + (columns - 60) ** 2 <= 30**2
    boxed = Annotated("a", BCCD, 1, image, (Mark(60, 60, Kind.NUCLEATED, TruthBox(30, 30, 90, 90)),))
    masked = Annotated("b", WBC, 1, image, (Mark(60, 60, Kind.NUCLEATED, mask=disk),))
    monkeypatch.setattr(locators, "SOURCES", {**SOURCES, BCCD: lambda _: iter([boxed]), WBC: lambda _: iter([masked])})
    mask = disk[30:91, 30:91]
    right = LocatedCell(60.0, 60.0, 30.0, 30, 30, 61, 61, 0.9, mask)
    by_fold = {0: lambda _: [], 1: lambda _: [right, _cell(15, 15, 10)], 2: lambda _: []}
    boxes = score_boxes(BCCD, Path(), by_fold)
    assert (boxes["hits"], boxes["truth"], boxes["located"], boxes["extra"]) == (1, 1, 2, [("a", 15, 15)])
    masks = score_masks(Path(), by_fold)
    assert masks["overlap"] == pytest.approx(1.0)
    assert [masks[name] for name in ("not_found", "radius", "centre")] == pytest.approx([0, 0, 0], abs=0.01)


def test_maps_are_those_that_are_served() -> None:
    maps = network_of(LocatorNetwork(4).eval())(np.zeros((16, 24, 3), np.uint8))
    assert maps.shape == (CHANNELS, 8, 12)
    assert 0.0 < maps[0].min() <= maps[0].max() < 0.1


def test_the_kept_figures_print_without_data(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    record = Path(__file__).parents[3] / "docs" / "runs" / "locators.json"
    locators.main(["--print", "--record", str(record)])
    printed = capsys.readouterr().out
    kept = json.loads(record.read_text(encoding="utf-8"))
    assert list(kept) == [STAIN, LEARNED]
    assert printed.splitlines() == [*table(kept), "", *drawn_table(kept)]
    page = (record.parents[1] / "location.md").read_text(encoding="utf-8")
    assert all(line in page for line in printed.splitlines() if not line.startswith("|--"))
