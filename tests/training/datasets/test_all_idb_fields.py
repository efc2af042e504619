"""Tests of the fields of ALL-IDB1 with their tables: which points are cells, of which class, and what a split keeps whole."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from tests.paths import DATA, ROOT
from tests.training.tiny_all_idb import COPY, HEALTHY, KEPT_BACK, OLYMPUS, write_all_idb
from training.datasets.all_idb_fields import CellClass, Field, Point, camera_of, read_crops, read_fields, read_points
from training.errors import DatasetError

REAL = DATA / "all_idb"
FIELD = Field("Im048_1", Path("Im048_1.jpg"), True, "canon", "s11", "2005-09-06 10:10:57", 2592, 1944, "canon-1", False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_all_idb(tmp_path / "all_idb")


@pytest.mark.parametrize(
    ("kind", "position", "wanted"),
    [
        ("lymphoblast", (1000, 1000), CellClass.BLAST),
        ("lymphoblast", (10, 1000), CellClass.BLAST),
        ("neutrophil", (1000, 1000), CellClass.NORMAL),
        ("erythroblast", (65, 65), CellClass.NORMAL),
        ("neutrophil", (64, 1000), CellClass.UNKNOWN),
        ("monocyte", (1000, 1944 - 65), CellClass.UNKNOWN),
        ("cut", (1000, 1000), CellClass.UNKNOWN),
        ("unsure", (1000, 1000), CellClass.UNKNOWN),
        ("lymphoblast_like", (1000, 1000), CellClass.UNKNOWN),
        ("smudged", (10, 10), CellClass.SMUDGED),
        ("platelet_or_debris", (10, 10), CellClass.NO_CELL),
        ("debris", (1000, 1000), CellClass.NO_CELL),
    ],
)
def test_what_a_point_is_to_a_classifier(kind: str, position: tuple[int, int], wanted: CellClass) -> None:
    assert Point("Im048_1", *position, kind).cell_class(FIELD) is wanted


def test_a_kind_that_nobody_knows_is_refused() -> None:
    with pytest.raises(DatasetError, match="kind 'artefact'"):
        Point("Im048_1", 1000, 1000, "artefact").cell_class(FIELD)


def test_sessions_and_blocks_stay_whole(root: Path) -> None:
    fields = read_fields(root)
    assert {fields[name].block for name, session in OLYMPUS.items() if session in ("s01", "s02")} == {"olympus-1"}
    assert fields["Im004_1"].block == fields["Im005_1"].block == "olympus-2"
    canon = [fields[f"Im{n:03d}_1"].block for n in range(48, 54)]
    assert canon == ["canon-1", "canon-1", "canon-2", "canon-3", "canon-4", "canon-5"]
    assert [fields[name].block for name in HEALTHY][:3] == ["canon-1-healthy", "canon-1-healthy", "canon-2-healthy"]
    assert fields[HEALTHY[0]].fold == "canon-1"
    assert fields[COPY].is_copy
    assert fields[COPY].block == fields[HEALTHY[0]].block


def test_an_other_point_without_a_kind_is_refused(root: Path) -> None:
    table = root / "kinds.csv"
    table.write_text("\n".join(line for line in table.read_text().splitlines() if not line.startswith("Im004_1,210")), encoding="utf-8")
    with pytest.raises(DatasetError, match="does not say what the point 210, 200 of Im004_1 is"):
        read_points(root)


def test_a_session_that_nobody_knows_is_refused(root: Path) -> None:
    table = root / "fields.csv"
    table.write_text(table.read_text().replace(",s06,", ",s99,"), encoding="utf-8")
    with pytest.raises(DatasetError, match="session 's99' of Im020_1"):
        read_fields(root)


def test_crops_of_fields_that_are_kept_back_are_known(root: Path) -> None:
    assert {c.field for c in read_crops(root) if c.kept_back} == set(KEPT_BACK)
    assert camera_of("Im033_1") == "olympus"
    assert camera_of("Im034_0") == "canon"


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no fields of ALL-IDB in {REAL}")
def test_real_points_and_kinds() -> None:
    """Counts of the README of the data; kinds are by eye."""
    fields, points = read_fields(REAL), read_points(REAL)
    classes = Counter(p.cell_class(fields[p.field]) for p in points)
    assert len(fields) == 61
    assert classes[CellClass.BLAST] == 346
    assert sum(classes.values()) == 346 + 798
    assert classes[CellClass.SMUDGED] == 14
    assert classes[CellClass.NO_CELL] == 627 + 8
    assert classes[CellClass.NORMAL] == 87
    assert classes[CellClass.UNKNOWN] == 44 + 5 + 12 + 1


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no fields of ALL-IDB in {REAL}")
def test_fields_that_overlap_are_in_one_fold() -> None:
    fields = read_fields(REAL)
    assert len({fields[n].fold for n in ("Im009_1", "Im010_1", "Im011_1")}) == 1
    assert len({fields[n].fold for n in ("Im021_1", "Im022_1")}) == 1


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no fields of ALL-IDB in {REAL}")
def test_no_field_that_is_kept_back_gives_a_cell() -> None:
    """Source fields of crops that are kept back have no image, no point and no kind here, so that nothing but the papers' protocols sees them."""
    held = {c.field for c in read_crops(REAL) if c.kept_back}
    here = set(read_fields(REAL))
    assert len(held) == 44
    assert not held & here
    assert not held & {p.field for p in read_points(REAL)}
    with (REAL / "all_idb2.csv").open(encoding="utf-8") as file:
        assert sum(bool(row["held_crop"]) for row in csv.DictReader(file)) == 122


def test_no_program_reads_the_published_coordinates() -> None:
    """They are of fields that are kept back as well: tests read their format, nothing learns or chooses by them."""
    programs = [path for room in ("training", "services", "clients") for path in (ROOT / room).rglob("*.py")]
    assert len(programs) > 300
    assert not [path for path in programs if "all_idb1_annotations" in path.read_text(encoding="utf-8")]


def test_no_release_learned_from_all_idb() -> None:
    cards = [*(ROOT / "releases").glob("*/release.json"), *(ROOT / "model_repository").glob("*/metadata.json")]
    assert cards
    assert not [card for card in cards if "all_idb2" in card.read_text(encoding="utf-8") or "all_idb_cells" in card.read_text(encoding="utf-8")]
