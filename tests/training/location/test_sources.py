"""Tests of the images that the locator learns from: what their marks are, and that sessions, blocks, slides and patients stay whole."""

from __future__ import annotations

import csv
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from services.common.phantom import CellKind, Phantom, PhantomOptions, smear_field
from services.patching.locator_maps import Kind
from tests.training.composed import write_aml_cells
from tests.training.location.drawn import Disk, disk, picture
from tests.training.tiny_all_idb import COPY, HEALTHY, KEPT_BACK, OLYMPUS, write_all_idb
from training.datasets.all_idb_fields import read_fields
from training.datasets.all_idb_unmarked import UNMARKED
from training.datasets.composed_fields import ComposedCell, ComposedField
from training.datasets.dataset import Dataset, GroupKind, ImageKind, LabelledImage, Subset
from training.datasets.fields import TruthBox
from training.datasets.patients import load_subsets
from training.location import sources
from training.location.annotated import FOLDS, Annotated, Mark
from training.location.sources import (
    AML,
    BCCD,
    CHULA,
    COMPOSED,
    FOLD_OF_BLOCK,
    PBC,
    PHANTOMS,
    SOURCES,
    WBC,
    aml_cells,
    bccd_fields,
    chula_fields,
    composed_fields,
    kind_of_point,
    pbc_cells,
    phantoms,
    wbc_masks,
)

Box = tuple[str, int, int, int, int]
CELL = Disk(100, 80, radius=40, nucleus=28)


def _kinds(image: Annotated) -> Counter[Kind]:
    return Counter(mark.kind for mark in image.marks)


def _write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)


def _bccd(root: Path, fields: dict[str, Sequence[Box]]) -> Path:
    for name, boxes in fields.items():
        _write(root / "JPEGImages" / f"{name}.jpg", picture([Disk(20, 16, 8, 6)], 36, 44))
        sides = ("xmin", "ymin", "xmax", "ymax")
        boxed = [(kind, "".join(f"<{n}>{v}</{n}>" for n, v in zip(sides, corners, strict=True))) for kind, *corners in boxes]
        objects = "".join(f"<object><name>{kind}</name><bndbox>{corners}</bndbox></object>" for kind, corners in boxed)
        (root / "Annotations").mkdir(exist_ok=True)
        (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{objects}</annotation>", encoding="utf-8")
    return root


def _chula(root: Path, fields: dict[str, str]) -> Path:
    for name, lines in fields.items():
        _write(root / "images" / f"{name}.jpg", picture([Disk(20, 16, 8, 6)], 40, 80))
        (root / "labels").mkdir(exist_ok=True)
        (root / "labels" / f"{name}.txt").write_text(lines, encoding="utf-8")
    return root


def _crops(folder: Path, groups: Sequence[str], classes: Sequence[str], subsets: Sequence[Subset]) -> Dataset:
    path = folder / "crop.png"
    _write(path, picture([CELL], 160, 200))
    rows = zip(groups, classes, subsets, strict=True)
    images = [LabelledImage(path, "crops", f"{i}.png", (name,), group, subset) for i, (group, name, subset) in enumerate(rows)]
    return Dataset("crops", ImageKind.CELL, tuple(sorted(set(classes))), GroupKind.PATIENT, tuple(images))


@pytest.fixture(scope="module")
def all_idb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_all_idb(tmp_path_factory.mktemp("data") / "all_idb")


@pytest.fixture(scope="module")
def of_all_idb(all_idb: Path) -> dict[str, Annotated]:
    return {image.key: image for image in sources.all_idb(all_idb)}


def test_fields_of_all_idb_are_those_that_are_there_without_copies(of_all_idb: dict[str, Annotated]) -> None:
    assert set(OLYMPUS) | set(HEALTHY) < set(of_all_idb)
    assert not {COPY, *KEPT_BACK} & set(of_all_idb)
    assert all(image.pixels.shape == (400, 420, 3) for image in of_all_idb.values())
    assert all(image.platelets_are_marked and not image.is_crop and image.red_cell_radius is None for image in of_all_idb.values())


def test_points_of_all_idb_are_cells_smudged_cells_or_platelets(of_all_idb: dict[str, Annotated]) -> None:
    assert _kinds(of_all_idb[HEALTHY[0]]) == {Kind.NUCLEATED: 3, Kind.SMUDGED: 1, Kind.PLATELET: 1}
    assert Mark(100, 300, Kind.PLATELET) in of_all_idb[HEALTHY[0]].marks
    assert Mark(30, 200, Kind.NUCLEATED) in of_all_idb[HEALTHY[0]].marks
    assert Mark(300, 100, Kind.SMUDGED) in of_all_idb[HEALTHY[0]].marks
    assert _kinds(of_all_idb["Im020_1"]) == {Kind.NUCLEATED: 5, Kind.SMUDGED: 1, Kind.PLATELET: 1}


def test_violet_masses_that_no_point_names_are_marks_too(of_all_idb: dict[str, Annotated]) -> None:
    seen = 0
    for name, image in of_all_idb.items():
        unmarked = {Mark(x, y, kind) for x, y, kind in UNMARKED.get(name, ())}
        assert unmarked <= set(image.marks)
        seen += len(unmarked)
    assert seen > 10


@pytest.mark.parametrize(
    ("point", "kind"),
    [
        ("lymphoblast", Kind.NUCLEATED),
        ("neutrophil", Kind.NUCLEATED),
        ("cut", Kind.NUCLEATED),
        ("unsure", Kind.NUCLEATED),
        ("lymphoblast_like", Kind.NUCLEATED),
        ("smudged", Kind.SMUDGED),
        ("platelet_or_debris", Kind.PLATELET),
        ("debris", Kind.PLATELET),
    ],
)
def test_the_kind_of_a_point(point: str, kind: Kind) -> None:
    assert kind_of_point(point) is kind


def test_blocks_of_all_idb_stay_whole(all_idb: Path, of_all_idb: dict[str, Annotated]) -> None:
    folds: dict[str, set[int]] = {}
    for name, field in read_fields(all_idb).items():
        if name in of_all_idb:
            folds.setdefault(field.block.removesuffix("-healthy"), set()).add(of_all_idb[name].fold)
    assert set(folds) == set(FOLD_OF_BLOCK)
    assert all(len(found) == 1 for found in folds.values())
    assert set.union(*folds.values()) == set(range(FOLDS))


def test_every_fold_has_fields_of_both_cameras() -> None:
    for camera in ("olympus", "canon"):
        assert {fold for block, fold in FOLD_OF_BLOCK.items() if block.startswith(camera)} == set(range(FOLDS))


def test_boxes_of_bccd_are_cells_and_platelets(tmp_path: Path) -> None:
    boxes: list[Box] = [("WBC", 12, 8, 28, 24), ("RBC", 1, 1, 9, 9), ("Platelets", 30, 20, 36, 30)]
    (image,) = bccd_fields(_bccd(tmp_path, {"BloodImage_00000": boxes}))
    assert image.marks == (Mark(20, 16, Kind.NUCLEATED, TruthBox(12, 8, 28, 24)), Mark(33, 25, Kind.PLATELET))
    assert (image.source, image.platelets_are_marked, image.is_crop, image.red_cell_radius) == (BCCD, True, False, None)


def test_what_a_person_saw_in_bccd_is_marked(tmp_path: Path) -> None:
    fields: dict[str, Sequence[Box]] = {f"BloodImage_{n}": [("WBC", 2, 2, 20, 20)] for n in ("00005", "00133", "00134", "00171")}
    twice, left_out, debris, smudge = (image.marks[1:] for image in bccd_fields(_bccd(tmp_path, fields)))
    assert left_out == (Mark(224, 37, Kind.NUCLEATED),)
    assert smudge == (Mark(260, 90, Kind.SMUDGED), Mark(355, 251, Kind.SMUDGED))
    assert twice == debris == ()


def test_neighbours_of_bccd_stay_together(tmp_path: Path) -> None:
    fields: dict[str, Sequence[Box]] = {f"BloodImage_{n:05d}": [] for n in range(121)}
    images = list(bccd_fields(_bccd(tmp_path, fields)))
    assert [image.key for image in images] == sorted(fields)
    assert [image.fold for image in images] == [*[0] * 40, *[1] * 40, *[2] * 40, 0]


def test_slides_of_chula_stay_whole(tmp_path: Path) -> None:
    names = ["B-30_0047", "B-30_0058", "B-57_0017", "E-13_0001", "N-3_0043", "N-3_0044"]
    images = list(chula_fields(_chula(tmp_path, dict.fromkeys(names, "2 0.25 0.4 0.2 0.4\n"))))
    assert [(image.key, image.fold) for image in images] == list(zip(names, (0, 0, 1, 2, 0, 0), strict=True))
    for image in images:
        (mark,) = image.marks
        assert (mark.x, mark.y) == pytest.approx((20, 16))
        assert mark.kind is Kind.NUCLEATED
        assert mark.box is not None
        assert mark.box.right - mark.box.left == pytest.approx(16)
        assert (image.source, image.platelets_are_marked) == (CHULA, False)


def test_cells_that_chula_leaves_out_are_marked(tmp_path: Path) -> None:
    (image,) = chula_fields(_chula(tmp_path, {"B-59_0179": "0 0.5 0.5 0.1 0.1\n"}))
    assert image.marks[1:] == (Mark(715, 578, Kind.NUCLEATED),)


def test_masks_of_single_cells_are_exact(tmp_path: Path) -> None:
    whole, nucleus = disk(50, 70, 30, 120, 110), disk(55, 70, 18, 120, 110)
    for number in range(1, 43):
        _write(tmp_path / f"{number:03d}_image.png", picture([Disk(50, 70, 30, 18)], 120, 110))
        _write(tmp_path / f"{number:03d}_mask.png", (128 * whole + 127 * nucleus).astype(np.uint8))
    images = list(wbc_masks(tmp_path))
    (mark,) = images[0].marks
    assert mark.mask is not None
    assert mark.nucleus is not None
    assert np.array_equal(mark.mask, whole)
    assert np.array_equal(mark.nucleus, nucleus)
    assert (mark.x, mark.y) == pytest.approx((50, 70))
    assert mark.kind is Kind.NUCLEATED
    assert (images[0].key, images[0].source, images[0].is_crop) == ("001_image", WBC, True)
    assert [image.fold for image in images] == [*[0] * 40, 1, 1]


def test_phantoms_have_exact_masks() -> None:
    images = list(itertools.islice(phantoms(Path()), 2))
    for number, image in enumerate(images):
        assert (image.key, image.source, image.fold, image.platelets_are_marked) == (f"phantom_{number:03d}", PHANTOMS, number, False)
        owned = np.zeros(image.pixels.shape[:2], int)
        for mark in image.marks:
            assert mark.mask is not None
            assert mark.nucleus is None
            assert mark.mask[round(mark.y), round(mark.x)]
            owned += mark.mask
        assert owned.max() == 1
        green = image.pixels[..., 1].astype(float)
        assert green[owned > 0].mean() < green[owned == 0].mean()
    assert not np.array_equal(images[0].pixels, images[1].pixels)


def test_phantoms_are_of_every_kind_and_none_is_one_that_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, PhantomOptions]] = []
    one = smear_field(1, PhantomOptions(width=64, height=64, cells=0, label=False))

    def drawn(seed: int, options: PhantomOptions) -> Phantom:
        asked.append((seed, options))
        return replace(one, options=options)

    monkeypatch.setattr(sources, "smear_field", drawn)
    images = list(phantoms(Path()))
    assert len({image.key for image in images}) == len({seed for seed, _ in asked}) == len(images) == 150
    assert min(seed for seed, _ in asked) >= 50_000
    assert Counter(image.fold for image in images) == {0: 50, 1: 50, 2: 50}
    assert [image.red_cell_radius for image in images] == [options.cell_radius / 1.2 for _, options in asked]
    assert not any(options.label for _, options in asked)
    for name in ("red_cell_density", "platelets", "blur_sigma", "noise", "touching", "stain", "light"):
        assert len({getattr(options, name) for _, options in asked}) >= 3, name
    assert {options.kinds for _, options in asked} == {tuple(CellKind), (CellKind.BLAST,)}


def test_composed_fields_keep_patients_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = SimpleNamespace(images=[SimpleNamespace(group=patient) for patient in ("P02", "P03", "P05", "P07", "P09")])
    monkeypatch.setattr(sources, "_learned_aml_cells", lambda _: dataset)
    given = [
        ComposedField(f"{patient}_{i}", patient, Subset.TRAIN, np.zeros((64, 64, 3), np.uint8), 0.8, (ComposedCell(20.0, 30.0, 9.0, i == 0),))
        for patient in ("P02", "P03", "P05", "P07")
        for i in range(2)
    ]
    asked = []

    def composed(_: object, composition: object, subset: Subset) -> list[ComposedField]:
        asked.append(subset)
        return given

    monkeypatch.setattr(sources, "compose_fields", composed)
    images = list(composed_fields(tmp_path))
    assert asked == [Subset.TRAIN]
    assert [image.fold for image in images] == [0, 0, 1, 1, 2, 2, 0, 0]
    assert all(image.marks == (Mark(20.0, 30.0, Kind.NUCLEATED),) for image in images)
    assert all(image.red_cell_radius == pytest.approx(0.8 * 34.7) for image in images)
    assert {image.source for image in images} == {COMPOSED}


def test_crops_are_of_training_patients_alone(tmp_path: Path) -> None:
    subsets = load_subsets()
    images = list(aml_cells(write_aml_cells(tmp_path, cells=1)))
    assert len(images) == 2
    for image in images:
        assert subsets[Path(image.key).stem.split("_")[0]] is Subset.TRAIN
        assert (image.source, image.is_crop) == (AML, True)
        assert image.red_cell_radius == pytest.approx(34.7)
        assert _kinds(image)[Kind.NUCLEATED] == len(image.marks) >= 1
        assert min(np.hypot(m.x - 132, m.y - 132) for m in image.marks) < 30


def test_patients_of_crops_stay_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = ["A", "B", "C", "D", "E"] * 2
    subsets = [*[Subset.TRAIN] * 4, Subset.TEST] * 2
    dataset = _crops(tmp_path, groups, ["blast"] * 10, subsets)
    monkeypatch.setattr(sources, "read_aml_cells", lambda _: dataset)
    images = list(aml_cells(tmp_path))
    patient = {image.key: image.group for image in dataset.images}
    folds = {(patient[image.key], image.fold) for image in images}
    assert folds == {("A", 0), ("B", 1), ("C", 2), ("D", 0)}
    assert len(images) == 8


def test_a_crop_is_marked_where_its_cell_is_located(tmp_path: Path) -> None:
    for name in ("ig", "platelet"):
        _write(tmp_path / name / "X_1.png", picture([CELL], 160, 200))
    with (tmp_path / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["path", "cell_class", "subtype"], ["ig/X_1.png", "ig", "MY"], ["platelet/X_1.png", "platelet", "PLT"]])
    images = {image.key: image for image in pbc_cells(tmp_path)}
    for key, kind in (("ig/X_1.png", Kind.NUCLEATED), ("platelet/X_1.png", Kind.PLATELET)):
        (mark,) = images[key].marks
        assert mark.kind is kind
        assert abs(mark.x - CELL.x) < 3
        assert abs(mark.y - CELL.y) < 3
        assert (images[key].source, images[key].is_crop) == (PBC, True)


def test_of_many_crops_some_are_drawn_the_same_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = _crops(tmp_path, [""] * 12, ["ig"] * 12, [Subset.TRAIN] * 12)
    monkeypatch.setattr(sources, "read_pbc_cells", lambda _: dataset)
    monkeypatch.setattr(sources, "_CROPS", 4)
    first, again = ([image.key for image in pbc_cells(tmp_path)] for _ in range(2))
    assert first == again
    assert len(set(first)) == 4
    assert first != [image.key for image in dataset.images[:4]]


def test_sources_are_named_as_their_folders() -> None:
    assert list(SOURCES) == ["all_idb", "bccd_fields", "chula_fields", "wbc_masks", "phantoms", "composed_fields", "aml_cells", "pbc_cells"]
