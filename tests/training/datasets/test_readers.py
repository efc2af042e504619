"""Tests of the readers, on tiny folders in exactly the layouts of the real data sets, and on the real ones where they are."""

from __future__ import annotations

import csv
import gzip
import shutil
import unicodedata
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.training.tiny_all_idb import write_all_idb
from training.datasets import all_idb, cnmc, fields, tissue
from training.datasets.all_idb_cells import write_cells
from training.datasets.dataset import Dataset, GroupKind, ImageKind, Subset, label_matrix
from training.datasets.own_cells import read_own_cells
from training.datasets.registry import READERS, find_folders, read_dataset, recognise
from training.datasets.single_cells import read_aml_cells, read_pbc_cells
from training.datasets.tables import read_rows
from training.errors import DatasetError


def _image(path: Path, width: int = 40, height: int = 40) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), 120, np.uint8)).save(path)


def _table(path: Path, header: list[str], rows: list[list[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def _aml(root: Path) -> None:
    rows = [("blast_no_lineage_spec", "P00"), ("promyelocyte", "P00"), ("lymphocyte", "P01"), ("monocyte", "P02")]
    for i, (name, patient) in enumerate(rows):
        _image(root / name / f"{patient}_{i:04d}.jpg")
    _table(
        root / "labels.csv",
        ["path", "cell_class", "patient_id", "patient_diagnosis"],
        [[f"{name}/{patient}_{i:04d}.jpg", name, patient, "APL"] for i, (name, patient) in enumerate(rows)],
    )


def _pbc(root: Path) -> None:
    for name in ("ig", "neutrophil"):
        _image(root / name / "X_1.jpg")
    _table(root / "labels.csv", ["path", "cell_class", "subtype"], [["ig/X_1.jpg", "ig", "MY"], ["neutrophil/X_1.jpg", "neutrophil", "BNE"]])


def _lc25000(root: Path) -> None:
    names = [("colon_aca", "colonca1", "colon_aca_0"), ("colon_aca", "colonca2", "colon_aca_0"), ("lung_n", "lungn7", "lung_n_3")]
    for folder, name, _ in names:
        _image(root / folder / f"{name}.jpg")
    _table(root / "labels.csv", ["path", "tissue_class", "source_tile_group"], [[f"{f}/{n}.jpg", f, g] for f, n, g in names])


ADP_COLUMNS = [
    "E",
    "E.M",
    "E.M.S",
    "E.M.C",
    "E.T",
    "E.T.S",
    "E.T.C",
    "E.T.X",
    "C",
    "C.D",
    "C.D.I",
    "C.D.R",
    "C.L",
    "C.X",
    "H",
    "H.E",
    "H.K",
    "H.Y",
    "H.X",
    "S",
    "S.M",
    "S.C",
    "S.R",
    "A",
    "A.W",
    "A.M",
    "M",
    "N",
    "N.P",
    "N.R",
    "N.G",
    "N.G.M",
    "N.G.A",
    "N.G.O",
    "N.G.E",
    "N.G.R",
    "N.G.T",
    "N.G.X",
    "G",
    "G.O",
    "G.N",
    "G.X",
    "T",
]


def _adp(root: Path, *, zipped: bool = False) -> None:
    shown = {"001.png_crop_7.png": ["E", "E.M", "E.M.S", "E.T.X"], "HE#2.png_crop_16.png": ["C", "H", "H.E"], "HE#2.png_crop_17.png": ["T"]}
    for name in shown:
        _image(root / tissue.ADP_IMAGES / name, 272, 272)
    table = root / "ADP_EncodedLabels_Release1_Flat.csv"
    _table(table, ["Patch Names", *ADP_COLUMNS], [[n, *[int(c in codes) for c in ADP_COLUMNS]] for n, codes in shown.items()])
    if zipped:
        (root / f"{table.name}.gz").write_bytes(gzip.compress(table.read_bytes()))
        table.unlink()


def _idb1(root: Path) -> None:
    for name, size in (("Im001_1", (1712, 1368)), ("Im034_0", (2592, 1944))):
        _image(root / "im" / f"{name}.jpg", *size)
        (root / "xyc").mkdir(exist_ok=True)
        (root / "xyc" / f"{name}.xyc").write_text("886\t726\n796\t653\n" if name.endswith("1") else "", encoding="ascii")


def _idb2(root: Path) -> None:
    for number in (1, 2, 11, 131, 140, 141):
        _image(root / "img" / f"Im{number:03d}_{int(number <= 130)}.tif", 257, 253 if number == 2 else 257)


def _idb_cells(root: Path) -> None:
    write_all_idb(root.with_name("fields"))
    write_cells(root.with_name("fields"), root / "cut")
    for path in (root / "cut").iterdir():
        path.rename(root / path.name)
    (root / "cut").rmdir()
    shutil.rmtree(root.with_name("fields"))


def _patches(root: Path, labels: tuple[str, str] = all_idb.PATCH_LABELS) -> None:
    rows: list[list[object]] = []
    for field, k, blast, other in (("Im001_1", 1, 1, 0), ("Im001_1", 2, 1, 1), ("Im064_0", 1, 0, 1), ("Im064_0", 2, 0, 0)):
        _image(root / f"{field}_patch_{k}.tif", 256, 256)
        rows.append([f"{field}_patch_{k}.tif", blast, other, "12 30 200 7" if blast else "N/A", "N/A"])
    _table(root / all_idb.PATCHES_TABLE, ["Filename", *labels, "Centroids blasts", "Centroids other cases"], rows)


def _cnmc(root: Path, *, test: bool = True) -> None:
    for fold, subject in (("fold_0", "1"), ("fold_1", "11"), ("fold_2", "4")):
        _image(root / fold / "all" / f"UID_{subject}_10_2_all.bmp", 450, 450)
        _image(root / fold / "hem" / f"UID_H{subject}_3_1_hem.bmp", 450, 450)
    if test:
        for n in (1, 2):
            _image(root / cnmc.PRELIMINARY_IMAGES / f"{n}.bmp", 450, 450)
        rows: list[list[object]] = [["UID_57_29_1_all.bmp", "1.bmp", 1], ["UID_H49_3_1_hem.bmp", "2.bmp", 0]]
        _table(root / cnmc.PRELIMINARY_LABELS, ["Patient_ID", "new_names", "labels"], rows)


def _aria(root: Path) -> None:
    names = ["Benign/WBC-Benign-001.jpg", "Benign/WBC-Benign-020.jpg", "Benign/WBC-Benign-021.jpg", "Pro/WBC-Malignant-Pro-001.jpg"]
    for name in names:
        _image(root / name)
    _table(root / "labels.csv", ["path", "subclass", "label"], [[n, n.split("/")[0], "normal"] for n in names])


def _bccd(root: Path) -> None:
    _image(root / "JPEGImages" / "BloodImage_00000.jpg", 640, 480)
    box = "<object><name>WBC</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object>"
    (root / "Annotations").mkdir()
    (root / "Annotations" / "BloodImage_00000.xml").write_text(f"<annotation>{box}</annotation>", encoding="utf-8")


def _chula(root: Path) -> None:
    _image(root / "images" / "B-30_0047.jpg", 144, 90)
    (root / "labels").mkdir()
    (root / "labels" / "B-30_0047.txt").write_text("2 0.5 0.5 0.1 0.1\n0 0.2 0.2 0.1 0.1\n", encoding="utf-8")


def _masks(root: Path) -> None:
    _image(root / "001_image.png", 120, 120)
    Image.fromarray(np.pad(np.full((40, 40), 128, np.uint8), 40)).save(root / "001_mask.png")
    _table(root / "labels.csv", ["image ID", "class label"], [[1, 2]])


def _own(root: Path, subsets: tuple[str, ...] = ()) -> None:
    rows: list[list[object]] = []
    for i, (name, label) in enumerate((("blast", "1"), ("lymphocyte", "0"), ("promonocyte", ""))):
        _image(root / "cells" / f"{i}.png")
        rows.append([f"cells/{i}.png", name, f"A{i}", label, *subsets[i : i + 1]])
    _table(root / "cells.csv", ["path", "cell_class", "patient_id", "is_blast", *["subset"] * bool(subsets)], rows)


BUILDERS = {
    "own_cells": _own,
    "aml_cells": _aml,
    "pbc_cells": _pbc,
    "lc25000_tiles": _lc25000,
    "adp": _adp,
    "all_idb1": _idb1,
    "all_idb2": _idb2,
    "all_idb_cells": _idb_cells,
    "all_idb_patches": _patches,
    "cnmc": _cnmc,
    "aria_fields": _aria,
    "bccd_fields": _bccd,
    "chula_fields": _chula,
    "wbc_masks": _masks,
}


@pytest.fixture
def every(tmp_path: Path) -> Path:
    for name, build in BUILDERS.items():
        (tmp_path / f"my_{name}").mkdir()
        build(tmp_path / f"my_{name}")
    return tmp_path


def test_every_reader_has_a_tiny_folder_here() -> None:
    assert BUILDERS.keys() == READERS.keys()


def test_every_layout_is_recognised_and_by_one_reader_only(every: Path) -> None:
    assert {n: p.name for n, p in find_folders([every]).items()} == {name: f"my_{name}" for name in READERS}
    assert recognise(every) is None


@pytest.mark.parametrize("name", READERS)
def test_every_layout_is_read(every: Path, name: str) -> None:
    dataset = read_dataset(name, every / f"my_{name}")
    assert dataset.name == name
    assert all(i.path.is_file() and i.source == name for i in dataset.images)
    assert len({i.key for i in dataset.images}) == len(dataset.images)
    assert not any(str(every) in i.key for i in dataset.images)
    labels = label_matrix(dataset.images, dataset.classes)
    assert dataset.multi_label or (labels.sum(axis=1) == 1).all()
    assert dataset.grouped_by is GroupKind.NONE or all(i.group for i in dataset.images)


def test_a_folder_without_a_known_layout_lists_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"(?s)no data set that is known.*fold_\{0,1,2\}"):
        find_folders([tmp_path])
    with pytest.raises(DatasetError, match="is not a folder"):
        find_folders([tmp_path / "gone"])


def test_the_same_data_set_twice_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        _idb2(tmp_path / name)
    with pytest.raises(DatasetError, match="all_idb2 is there twice"):
        find_folders([tmp_path])
    with pytest.raises(DatasetError, match="There is no data set 'nothing'"):
        read_dataset("nothing", tmp_path)


def test_aml_cells(tmp_path: Path) -> None:
    _aml(tmp_path)
    images = read_aml_cells(tmp_path).images
    assert [(i.classes[0], i.group, i.is_blast) for i in images] == [
        ("blast_no_lineage_spec", "P00", 1),
        ("promyelocyte", "P00", None),
        ("lymphocyte", "P01", 0),
        ("monocyte", "P02", 0),
    ]
    assert images[0].subset is images[1].subset
    assert Subset.UNASSIGNED not in {i.subset for i in images}


def test_a_patient_outside_the_committed_list_is_told(tmp_path: Path) -> None:
    _aml(tmp_path)
    labels = tmp_path / "labels.csv"
    labels.write_text(labels.read_text(encoding="utf-8").replace(",P02,", ",P99,"), encoding="utf-8")
    with pytest.raises(DatasetError, match="'P99' is not in the committed list"):
        read_aml_cells(tmp_path)


@pytest.mark.parametrize("read", [read_aml_cells, read_pbc_cells, tissue.read_lc25000_tiles, tissue.read_adp, fields.read_aria_fields])
def test_missing_labels_and_missing_images_are_told(every: Path, read: Callable[[Path], Dataset]) -> None:
    names: dict[Callable[..., Dataset], str] = {read_aml_cells: "aml_cells", read_pbc_cells: "pbc_cells", tissue.read_lc25000_tiles: "lc25000_tiles"}
    names |= {tissue.read_adp: "adp", fields.read_aria_fields: "aria_fields"}
    folder = every / f"my_{names[read]}"
    image = sorted(p for p in folder.rglob("*") if p.suffix in (".jpg", ".png"))[0]
    image.unlink()
    with pytest.raises(DatasetError, match=r"is named in .* but missing"):
        read(folder)
    for table in folder.glob("*.csv"):
        table.unlink()
    with pytest.raises(DatasetError, match="is missing"):
        read(folder)


@pytest.mark.parametrize("zipped", [False, True])
def test_adp_levels_are_cumulative_and_grouped_by_slide(tmp_path: Path, zipped: bool) -> None:
    _adp(tmp_path, zipped=zipped)
    by_level = [tissue.read_adp(tmp_path, level) for level in (1, 2, 3)]
    assert [len(d.classes) for d in by_level] == [9, 26, 38]
    assert [d.images[0].classes for d in by_level] == [("E",), ("E", "E.M"), ("E", "E.M", "E.M.S")]
    assert [i.group for i in by_level[0].images] == ["001", "HE#2", "HE#2"]
    assert all(d.multi_label and d.grouped_by is GroupKind.SLIDE for d in by_level)
    assert all(set(a.classes) < set(b.classes) for a, b in pairwise(by_level))
    with pytest.raises(DatasetError, match="levels 1, 2 and 3"):
        tissue.adp_classes(cast(Any, 4))


def test_own_cells_with_and_without_subsets(tmp_path: Path) -> None:
    _own(tmp_path)
    assert [(i.group, i.is_blast, i.subset) for i in read_own_cells(tmp_path).images] == [
        ("A0", 1, Subset.UNASSIGNED),
        ("A1", 0, Subset.UNASSIGNED),
        ("A2", None, Subset.UNASSIGNED),
    ]
    _own(tmp_path, ("train", "calibration", "test"))
    assert [i.subset for i in read_own_cells(tmp_path).images] == [Subset.TRAIN, Subset.CALIBRATION, Subset.TEST]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("A1,0", "A1,no", "row 3: is_blast is 1, 0 or empty, not 'no'"),
        ("A1,0", ",0", "row 3: no patient_id"),
        ("0,calibration", "0,validation", "row 3: a subset is train, calibration or test, not 'validation'"),
    ],
)
def test_own_cells_that_make_no_sense_are_told_with_their_row(tmp_path: Path, old: str, new: str, message: str) -> None:
    _own(tmp_path, ("train", "calibration", "test"))
    table = tmp_path / "cells.csv"
    table.write_text(table.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(DatasetError, match=message):
        read_own_cells(tmp_path)


def test_adp_labels_that_are_not_binary_are_told(tmp_path: Path) -> None:
    _adp(tmp_path)
    table = tmp_path / "ADP_EncodedLabels_Release1_Flat.csv"
    table.write_text(table.read_text(encoding="utf-8").replace("001.png_crop_7.png,1", "001.png_crop_7.png,2"), encoding="utf-8")
    with pytest.raises(DatasetError, match=r"labels of 001\.png_crop_7\.png are not 0 and 1"):
        tissue.read_adp(tmp_path)


@pytest.mark.shared_data
def test_the_real_adp_table(shared_data: Path) -> None:
    table = shared_data / "adp_labels" / "ADP_EncodedLabels_Release1_Flat.csv.gz"
    rows = tissue.read_adp_table(table, 1)
    assert len(rows) == 17_668
    assert len({tissue.adp_slide(name) for name, _ in rows}) == 100
    counts = {c: sum(c in codes for _, codes in rows) for c in tissue.adp_classes(1)}
    assert counts == {"E": 10800, "C": 13085, "H": 9834, "S": 543, "A": 673, "M": 4922, "N": 2296, "G": 7944, "T": 6045}
    third = tissue.read_adp_table(table, 3)
    shown = {c for _, codes in third for c in codes}
    assert set(tissue.adp_classes(3)) - shown == {"N.G.A", "N.G.O", "N.G.E", "N.G.R", "N.G.T"}
    assert sum(len(codes) for _, codes in rows) / len(rows) == pytest.approx(3.18, abs=0.005)
    assert sum(len(codes) for _, codes in third) / len(third) == pytest.approx(7.53, abs=0.005)


def test_all_idb1_fields_are_groups_of_their_own(tmp_path: Path) -> None:
    _idb1(tmp_path)
    dataset = all_idb.read_all_idb1(tmp_path)
    assert dataset.kind is ImageKind.FIELD
    assert [(i.group, i.classes[0]) for i in dataset.images] == [("Im001_1", "leukaemic"), ("Im034_0", "healthy")]
    assert all_idb.read_centroids(tmp_path / "xyc" / "Im001_1.xyc") == ((886.0, 726.0), (796.0, 653.0))
    assert all_idb.read_centroids(tmp_path / "xyc" / "Im034_0.xyc") == ()


def test_all_idb2_with_and_without_prefix_in_runs_of_ten(tmp_path: Path) -> None:
    _idb2(tmp_path)
    dataset = all_idb.read_all_idb2(tmp_path)
    assert [i.group for i in dataset.images] == ["1-00", "1-00", "1-01", "0-13", "0-13", "0-14"]
    assert [i.is_blast for i in dataset.images] == [1, 1, 1, 0, 0, 0]
    for path in (tmp_path / "img").iterdir():
        path.rename(path.with_name(path.name.removeprefix("Im")))
    assert [i.group for i in all_idb.read_all_idb2(tmp_path).images] == [i.group for i in dataset.images]
    (tmp_path / "img" / "foreign.tif").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"foreign\.tif is not called ImNNN_Y"):
        all_idb.read_all_idb2(tmp_path)


@pytest.mark.parametrize("labels", [all_idb.PATCH_LABELS, all_idb.OLDER_PATCH_LABELS])
def test_all_idb_patches_may_show_both_or_none_and_stay_with_their_field(tmp_path: Path, labels: tuple[str, str]) -> None:
    _patches(tmp_path, labels)
    dataset = all_idb.read_all_idb_patches(tmp_path)
    assert [i.classes for i in dataset.images] == [("lymphoblast",), ("lymphoblast", "normal"), ("normal",), ()]
    assert [i.group for i in dataset.images] == ["Im001_1", "Im001_1", "Im064_0", "Im064_0"]


def test_all_idb_patches_with_other_columns_or_names_are_told(tmp_path: Path) -> None:
    _patches(tmp_path, ("A", "B"))
    with pytest.raises(DatasetError, match="has neither the columns"):
        all_idb.read_all_idb_patches(tmp_path)
    _patches(tmp_path)
    table = tmp_path / all_idb.PATCHES_TABLE
    table.write_text(table.read_text(encoding="utf-8").replace("Im001_1_patch_1.tif,1", "Im001_1_patch_1.tif,7"), encoding="utf-8")
    with pytest.raises(DatasetError, match=r"Im001_1_patch_1\.tif"):
        all_idb.read_all_idb_patches(tmp_path)


@pytest.mark.shared_data
def test_the_real_centroids(shared_data: Path) -> None:
    folder = shared_data / "all_idb1_annotations"
    found = all_idb.read_all_centroids(folder)
    assert (len(found), sum(map(len, found.values()))) == (108, 1430)
    assert [sum(len(points) for name, points in found.items() if name.endswith(label)) for label in ("_1", "_0")] == [429, 1001]
    assert sum(name.endswith("_1") for name in found) == 49
    assert found["Im001_1"] == ((799.0, 769.0), (1414.0, 33.0))
    legacy = [all_idb.read_centroids(p, legacy_drop_first=True) for p in sorted(folder.glob("*.xyc"))]
    assert sum(map(len, legacy)) == 1322


NUMBERS = st.integers(0, 2600)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=8), st.sampled_from(["\t", " ", "  "]), st.sampled_from(["\n", "\r\n"]))
def test_centroids_are_read_whatever_separates_them(
    tmp_path_factory: pytest.TempPathFactory, points: list[tuple[int, int]], space: str, line_end: str
) -> None:
    path = tmp_path_factory.mktemp("xyc") / "Im001_1.xyc"
    path.write_bytes("".join(f"{x}{space}{y}{line_end}" for x, y in points).encode())
    assert all_idb.read_centroids(path) == tuple(points)


@pytest.mark.parametrize(("first", "second"), [("WBC_probable_lymphoblasts", "Other_cases"), ("blasts", "normal")])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_merged_centroids(tmp_path: Path, first: str, second: str, line_end: str) -> None:
    path = tmp_path / "Im001_1.xyc"
    path.write_bytes(line_end.join([first, "886 726", "796\t653", second, "799 769", ""]).encode())
    assert all_idb.read_merged_centroids(path) == all_idb.Centroids(((886.0, 726.0), (796.0, 653.0)), ((799.0, 769.0),))


@pytest.mark.parametrize("text", ["12\n", "1 2 3\n", "a b\n", "1,2\n"])
def test_lines_that_are_not_two_numbers_are_told_with_their_number(tmp_path: Path, text: str) -> None:
    path = tmp_path / "Im001_1.xyc"
    path.write_text(f"1 2\n{text}", encoding="ascii")
    with pytest.raises(DatasetError, match="line 2 is not two numbers"):
        all_idb.read_centroids(path)


def test_reading_stops_at_the_first_empty_line(tmp_path: Path) -> None:
    path = tmp_path / "Im001_1.xyc"
    path.write_text("1 2\n\n3 4\n", encoding="ascii")
    assert all_idb.read_centroids(path) == ((1.0, 2.0),)


def test_merged_centroids_without_headings_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.xyc"
    path.write_text("1 2\n", encoding="ascii")
    with pytest.raises(DatasetError, match="before any heading"):
        all_idb.read_merged_centroids(path)
    path.write_text("blasts\n1 2\n", encoding="ascii")
    with pytest.raises(DatasetError, match="not both there"):
        all_idb.read_merged_centroids(path)


@pytest.mark.parametrize("inside", ["", "C-NMC_training_data"])
def test_cnmc_groups_by_the_subject_token_alone(tmp_path: Path, inside: str) -> None:
    _cnmc(tmp_path / inside)
    images = cnmc.read_cnmc(tmp_path).images
    assert {(i.fold, i.group, i.is_blast) for i in images if i.subset is Subset.TRAIN} == {
        *(("fold_0", "1", 1), ("fold_0", "H1", 0), ("fold_1", "11", 1)),
        *(("fold_1", "H11", 0), ("fold_2", "4", 1), ("fold_2", "H4", 0)),
    }
    assert {(i.group, i.is_blast, i.fold) for i in images if i.subset is Subset.TEST} == {("57", 1, "preliminary"), ("H49", 0, "preliminary")}


def test_cnmc_without_the_preliminary_test(tmp_path: Path) -> None:
    _cnmc(tmp_path, test=False)
    assert {i.subset for i in cnmc.read_cnmc(tmp_path).images} == {Subset.TRAIN}


def test_cnmc_a_test_subject_in_the_training_folds_is_a_leak(tmp_path: Path) -> None:
    _cnmc(tmp_path)
    table = tmp_path / cnmc.PRELIMINARY_LABELS
    table.write_text(table.read_text(encoding="utf-8").replace("UID_57_", "UID_11_"), encoding="utf-8")
    with pytest.raises(DatasetError, match=r"subjects \['11'\] stand in the training folds"):
        cnmc.read_cnmc(tmp_path)


def test_cnmc_a_label_that_contradicts_its_folder_is_told(tmp_path: Path) -> None:
    _cnmc(tmp_path)
    (tmp_path / "fold_1" / "hem" / "UID_5_1_1_all.bmp").write_bytes(b"")
    with pytest.raises(DatasetError, match="is not called"):
        cnmc.read_cnmc(tmp_path)


def test_cnmc_a_missing_fold_is_told(tmp_path: Path) -> None:
    _cnmc(tmp_path)
    (tmp_path / "fold_2" / "hem" / "UID_H4_3_1_hem.bmp").unlink()
    with pytest.raises(DatasetError, match="holds no images"):
        cnmc.read_cnmc(tmp_path)


@pytest.mark.parametrize(("name", "subject"), [("UID_57_29_1_all.bmp", "57"), ("UID_H49_3_1_hem", "H49"), ("UID_53", "53")])
def test_subjects(name: str, subject: str) -> None:
    assert cnmc.subject_of(name) == subject


@given(st.text(max_size=12).filter(lambda s: not s.strip().startswith("UID_")))
def test_other_names_have_no_subject(name: str) -> None:
    with pytest.raises(DatasetError, match="UID_<subject>"):
        cnmc.subject_of(name)


def test_aria_blocks_of_twenty_and_chula_slides(every: Path) -> None:
    assert [i.group for i in fields.read_aria_fields(every / "my_aria_fields").images] == ["Benign-00", "Benign-00", "Benign-01", "Pro-00"]
    (field,) = fields.read_chula_set(every / "my_chula_fields").images
    assert (field.group, field.classes) == ("B-30", ("neutrophil", "basophil"))


@pytest.mark.shared_data
def test_the_real_sets(shared_data: Path) -> None:
    found = find_folders([shared_data])
    counts = {name: len(read_dataset(name, folder).images) for name, folder in found.items()}
    assert counts == {
        "aml_cells": 6571,
        "pbc_cells": 1200,
        "aria_fields": 975,
        "bccd_fields": 364,
        "chula_fields": 29,
        "wbc_masks": 300,
        "lc25000_tiles": 1530,
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path,label\na.png\n", r"rows \[2\]"),
        (b"path,label\na.png,1,2\n", r"rows \[2\]"),
        (b"path\na.png\n", r"lacks the columns \['label'\]"),
        (b"\xff\xfe\x00", "not a readable table"),
    ],
)
def test_broken_tables_are_told(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        read_rows(tmp_path / "labels.csv", ("path", "label"))


def test_a_zipped_table_that_is_cut_off_is_told(tmp_path: Path) -> None:
    (tmp_path / "labels.csv.gz").write_bytes(gzip.compress(b"path,label\n" * 500)[:-20])
    with pytest.raises(DatasetError, match="not a readable table"):
        read_rows(tmp_path / "labels.csv.gz", ("path", "label"))


def _leave(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"\x00\x05\x16\x07")


def test_what_a_system_left_beside_the_images_is_passed_over_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (1, 2):
        _image(tmp_path / "img" / f"Im{number:03d}_{number - 1}.tif")
    before = read_dataset("all_idb2", tmp_path)
    _leave(tmp_path / "img", "._Im001_1.tif", "._Im002_0.tif", ".hidden.tif", "Thumbs.db", "desktop.ini", ".DS_Store")
    assert capsys.readouterr().err == ""
    for _ in range(2):
        assert read_dataset("all_idb2", tmp_path) == before
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{tmp_path / 'img'}: passed over: ")
    for words in ("2 hidden files (._*)", "2 hidden files", "Thumbs.db", "desktop.ini"):
        assert words in line


def test_every_layout_reads_the_same_beside_what_a_mac_left(tmp_path: Path) -> None:
    for name, make in (("all_idb1", _idb1), ("cnmc", _cnmc), ("all_idb_patches", _patches), ("bccd_fields", _bccd), ("chula_fields", _chula)):
        make(tmp_path / name)
        before = read_dataset(name, tmp_path / name)
        for path in [path for path in (tmp_path / name).rglob("*") if path.is_file()]:
            _leave(path.parent, f"._{path.name}", "Thumbs.db", ".DS_Store")
        _leave(tmp_path / name, "__MACOSX/fold_0/all/._UID_1_1_1_all.bmp")
        assert recognise(tmp_path / name) == name
        assert read_dataset(name, tmp_path / name) == before


def test_masks_are_read_beside_what_a_mac_left(tmp_path: Path) -> None:
    _masks(tmp_path)
    before = [path for path, _ in fields.read_wbc_masks(tmp_path)]
    _leave(tmp_path, *(f"._{path.name}" for path in tmp_path.iterdir()))
    assert [path for path, _ in fields.read_wbc_masks(tmp_path)] == before


def test_a_folder_of_left_overs_alone_is_no_data_set(tmp_path: Path) -> None:
    _leave(tmp_path / "img", "._Im001_1.tif")
    _leave(tmp_path, "._ALL_IDB1_patches.csv")
    assert recognise(tmp_path) is None


def test_suffixes_may_be_in_upper_case(tmp_path: Path) -> None:
    _image(tmp_path / "img" / "Im001_1.TIF")
    assert recognise(tmp_path) == "all_idb2"
    assert len(read_dataset("all_idb2", tmp_path).images) == 1


def test_a_table_names_files_as_windows_or_as_a_mac_writes_them(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Größe.png") for form in ("NFC", "NFD"))
    _image(tmp_path / "smears" / "1.png")
    _image(tmp_path / "smears" / decomposed)
    rows = [["smears\\1.png", "a", "P1", 1], [f"smears\\{composed}", "b", "P2", 0]]
    _table(tmp_path / "cells.csv", ["path", "cell_class", "patient_id", "is_blast"], rows)
    assert [image.path.name for image in read_own_cells(tmp_path).images] == ["1.png", decomposed]


@pytest.mark.parametrize("path", ["", "gone.png", "smears", "C:\\smears\\1.png"])
def test_a_line_that_names_no_file_is_told(tmp_path: Path, path: str) -> None:
    _image(tmp_path / "smears" / "1.png")
    _table(tmp_path / "cells.csv", ["path", "cell_class", "patient_id", "is_blast"], [["smears/1.png", "a", "P1", 1], [path, "b", "P2", 0]])
    with pytest.raises(DatasetError, match="row 3"):
        read_own_cells(tmp_path)


def test_own_cells_are_read_from_a_table_of_a_german_excel(tmp_path: Path) -> None:
    _image(tmp_path / "1.png")
    (tmp_path / "cells.csv").write_bytes(b"\xef\xbb\xbfPath; Cell_Class;patient_id;is_blast;Subset;\r\n1.png;blast;P1;1;test;\r\n;;;;;\r\n")
    (image,) = read_own_cells(tmp_path).images
    assert (image.group, image.subset, image.is_blast, image.classes) == ("P1", Subset.TEST, 1, ("blast",))
