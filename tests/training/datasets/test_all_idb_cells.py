"""Tests of the cells that are cut out of the fields of ALL-IDB1, and of ALL-IDB2 that is cut out of the same fields."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.paths import DATA
from tests.training.tiny_all_idb import CANON, COPY, HEALTHY, OLYMPUS, write_all_idb
from training.crops.sources import Sources
from training.datasets.all_idb import ALL_IDB2, read_all_idb2
from training.datasets.all_idb_cells import ALL_IDB_CELLS, WINDOW, read_all_idb_cells, write_all_idb2, write_both, write_cells
from training.datasets.all_idb_fields import read_crops, read_fields
from training.datasets.dataset import GroupKind, Subset
from training.datasets.registry import find_folders
from training.errors import DatasetError
from training.recipes.config import Input, InputKind, load_recipe
from training.runs.target import cell_pack

REAL = DATA / "all_idb"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_all_idb(tmp_path / "all_idb")


def test_windows_around_points_with_their_class(root: Path, tmp_path: Path) -> None:
    dataset = write_cells(root, tmp_path / "cells")
    leukaemic = len(OLYMPUS) + len(CANON)
    every = leukaemic + len(HEALTHY)
    assert Counter((i.classes[0], i.is_blast) for i in dataset.images) == {
        ("lymphoblast", 1): leukaemic,
        ("lymphocyte", 0): every,
        ("cut", None): every,
        ("smudged", None): every,
        ("neutrophil", None): every,
    }
    assert dataset.grouped_by is GroupKind.BLOCK
    assert not [i for i in dataset.images if COPY in i.key]
    with Image.open(root / "ALL_IDB1" / "im" / "Im001_1.jpg") as image:
        field = np.asarray(image.convert("RGB"))
    with Image.open(tmp_path / "cells" / "cells" / "Im001_1_0150_0150.tif") as image:
        window = np.asarray(image)
    assert window.shape == (WINDOW, WINDOW, 3)
    assert np.array_equal(window, field[150 - 128 : 150 + 129, 150 - 128 : 150 + 129])
    with Image.open(tmp_path / "cells" / "cells" / "Im001_1_0210_0200.tif") as image:
        assert np.array_equal(np.asarray(image)[128, 128], field[200, 210])


def test_a_window_that_leaves_the_field_is_mirrored(root: Path, tmp_path: Path) -> None:
    write_cells(root, tmp_path / "cells")
    with Image.open(tmp_path / "cells" / "cells" / "Im001_1_0030_0200.tif") as image:
        window = np.asarray(image)
    assert np.array_equal(window[:, 128 - 30 - 1], window[:, 128 - 30 + 1])


def test_the_official_layout_has_the_published_pixels(root: Path, tmp_path: Path) -> None:
    write_all_idb2(root, tmp_path / "official", source_fields=False)
    dataset = read_all_idb2(tmp_path / "official")
    assert [i.key for i in dataset.images] == [c.name for c in read_crops(root)]
    assert {i.subset for i in dataset.images} == {Subset.UNASSIGNED}
    table = root / "all_idb2.csv"
    lines = table.read_text().splitlines()
    digest = lines[1].split(",")[7]
    table.write_text("\n".join(lines).replace(digest, "0" * 64), encoding="utf-8")
    with pytest.raises(DatasetError, match=r"Im001_1\.tif: .* decodes to other pixels"):
        write_all_idb2(root, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    assert not list(tmp_path.glob("*.part"))


def test_crops_of_fields_that_are_kept_back_are_for_the_papers_protocols_alone(root: Path, tmp_path: Path) -> None:
    write_both(root, tmp_path / "cut")
    sources = Sources.find([tmp_path / "cut"], tmp_path / "packs")
    assert set(sources.names) == {ALL_IDB_CELLS, ALL_IDB2}
    dataset = sources.dataset(ALL_IDB2)
    held = {c.name for c in read_crops(root) if c.kept_back}
    assert {i.key for i in dataset.images if i.subset is Subset.KEPT_BACK} == held
    pack = sources.pack(ALL_IDB2, Input(kind=InputKind.CENTER_CROP, side=32))
    every = pack.in_subset(Subset.TRAIN, Subset.CALIBRATION, Subset.TEST)
    assert not held & set(pack.keys[every])
    recipe = load_recipe("histotnet", "published", ['fine_tuning.input={ kind = "center_crop", side = 32 }'])
    assert held < set(cell_pack(sources, ALL_IDB2, recipe).keys)


def test_a_crop_of_a_field_that_is_neither_here_nor_kept_back_is_refused(root: Path, tmp_path: Path) -> None:
    table = root / "fields.csv"
    table.write_text("\n".join(line for line in table.read_text().splitlines() if "Im001_1" not in line), encoding="utf-8")
    with pytest.raises(DatasetError, match=r"Im001_1\.tif is of Im001_1, which is not among the fields"):
        write_all_idb2(root, tmp_path / "official")


def test_nothing_is_written_over(root: Path, tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    with pytest.raises(DatasetError, match="already there"):
        write_cells(root, tmp_path / "cells")


def test_a_table_with_another_label_is_refused(root: Path, tmp_path: Path) -> None:
    write_cells(root, tmp_path / "cells")
    table = tmp_path / "cells" / "all_idb_cells.csv"
    table.write_text(table.read_text().replace(",lymphocyte,0,", ",lymphocyte,2,", 1), encoding="utf-8")
    with pytest.raises(DatasetError, match="1, 0 or empty, not '2'"):
        read_all_idb_cells(tmp_path / "cells")


def test_a_crop_that_the_table_of_source_fields_lacks_is_refused(root: Path, tmp_path: Path) -> None:
    write_all_idb2(root, tmp_path / "crops")
    table = tmp_path / "crops" / "source_fields.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:-1]), encoding="utf-8")
    with pytest.raises(DatasetError, match="does not say which field"):
        read_all_idb2(tmp_path / "crops")


def test_the_layout_is_recognised(root: Path, tmp_path: Path) -> None:
    write_cells(root, tmp_path / "cells")
    assert find_folders([tmp_path / "cells"]) == {ALL_IDB_CELLS: tmp_path / "cells"}


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no fields of ALL-IDB in {REAL}")
def test_all_idb2_is_rebuilt_from_the_real_fields(tmp_path: Path) -> None:
    """All 260 crops have the published pixels; 138 are of fields that are here."""
    write_all_idb2(REAL, tmp_path / "crops")
    dataset = read_all_idb2(tmp_path / "crops")
    fields = read_fields(REAL)
    free = {i.key for i in dataset.images if i.subset is not Subset.KEPT_BACK}
    assert len(dataset.images) == 260
    assert len(free) == 138
    assert {c.field for c in read_crops(REAL) if c.name in free} <= set(fields)
