"""Tests of the data of the table of ALL-IDB: what is cut out of the fields, and what is told where data are missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.training.tiny_all_idb import CANON, COPY, HEALTHY, KEPT_BACK, OLYMPUS, tiny_benchmark
from training.datasets.all_idb import ALL_IDB2, ALL_IDB_PATCHES, SOURCE_FIELDS
from training.datasets.all_idb_cells import ALL_IDB_CELLS
from training.datasets.dataset import Subset
from training.datasets.tissue import LC25000_TILES
from training.errors import DatasetError
from training.evaluation.all_idb import data as module
from training.evaluation.all_idb.data import BenchmarkData

CROPS = len(OLYMPUS) + len(CANON) + len(HEALTHY) + len(KEPT_BACK)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BenchmarkData]:
    with tiny_benchmark(tmp_path_factory.mktemp("tiny")) as found:
        yield found


def test_data_are_found_by_their_names(tmp_path: Path) -> None:
    root = tmp_path / "all_idb"
    root.mkdir()
    for name in ("fields.csv", "all_idb2.csv"):
        (root / name).touch()
    found = BenchmarkData.find(tmp_path, tmp_path / "cache")
    assert found.fields == root
    assert found.tissue == tmp_path / "lc25000_tiles"
    assert found.aml_cells == tmp_path / "aml_cells"
    assert found.checkpoint.parent == tmp_path / "allnet_adp_checkpoints"
    assert {found.cut, found.packs} == {tmp_path / "cache" / "all_idb", tmp_path / "cache" / "packs"}
    assert not (tmp_path / "cache").exists(), "nothing is cut before it is asked for"


@pytest.mark.parametrize("there", [(), ("fields.csv",), ("all_idb2.csv",)])
def test_a_folder_without_the_fields_is_refused(tmp_path: Path, there: tuple[str, ...]) -> None:
    (tmp_path / "all_idb").mkdir()
    for name in there:
        (tmp_path / "all_idb" / name).touch()
    missing = " and ".join(name for name in ("fields.csv", "all_idb2.csv") if name not in there)
    with pytest.raises(DatasetError, match=f"all_idb lacks {missing}: name the folder that holds all_idb/ with --data"):
        BenchmarkData.find(tmp_path, tmp_path / "cache")


def test_the_papers_crops_know_nothing_of_fields(data: BenchmarkData) -> None:
    official = data.official_crops()
    assert not (official.folders[ALL_IDB2] / SOURCE_FIELDS).exists()
    images = official.dataset(ALL_IDB2).images
    assert len(images) == CROPS
    assert Subset.KEPT_BACK not in {image.subset for image in images}


def test_honest_crops_know_blocks_and_what_is_kept_back(data: BenchmarkData) -> None:
    images = data.crops().dataset(ALL_IDB2).images
    assert len(images) == CROPS
    assert {i.group for i in images if i.subset is Subset.KEPT_BACK} == {f"kept-back-{field}" for field in KEPT_BACK}
    assert {i.group for i in images if "olympus" in i.group} == {"olympus-1", "olympus-2", "olympus-3"}


def test_windows_and_patches_are_of_the_fields(data: BenchmarkData) -> None:
    cells = data.cells().dataset(ALL_IDB_CELLS).images
    assert sum(i.is_blast == 1 for i in cells) == len(OLYMPUS) + len(CANON)
    assert sum(i.is_blast == 0 for i in cells) == len(OLYMPUS) + len(CANON) + len(HEALTHY)
    patches = data.patches().dataset(ALL_IDB_PATCHES).images
    assert {i.group for i in patches} == {*OLYMPUS, *CANON, *HEALTHY, COPY}
    assert all(("lymphoblast" in i.classes) == i.group.endswith("_1") for i in patches)


def test_everything_is_cut_once(data: BenchmarkData, monkeypatch: pytest.MonkeyPatch) -> None:
    data.official_crops(), data.crops(), data.cells(), data.patches()
    for name in ("write_all_idb2", "write_cells", "write_patches"):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("it is cut again"))
    folders = [path for sources in (data.official_crops(), data.crops(), data.cells(), data.patches()) for path in sources.folders.values()]
    assert len(set(folders)) == 4
    assert all(path.parent == data.cut for path in folders)


def test_tissue_stands_beside_the_cells_or_is_asked_for(data: BenchmarkData) -> None:
    crops = data.official_crops()
    with pytest.raises(DatasetError, match="lc25000_tiles is missing: rows that learn tissue need it"):
        data.with_tissue(crops)
    data.tissue.mkdir()
    both = data.with_tissue(crops)
    assert dict(both.folders) == {**crops.folders, LC25000_TILES: data.tissue}
    data.tissue.rmdir()
