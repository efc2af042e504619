"""Every image that the locator learns from, source by source, with its fold: sessions, blocks, slides and patients stay whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from services.common.image_codec import decode_image
from services.common.phantom import CellKind, PhantomOptions, smear_field
from services.patching.cells import locate_cells
from services.patching.locator_maps import Kind
from training.crops.composition import Composition, compose_fields
from training.datasets.all_idb_fields import NO_CELL, SMUDGED, read_fields, read_points
from training.datasets.all_idb_unmarked import UNMARKED
from training.datasets.composed_fields import RED_CELL_RADIUS as AML_RED_CELL
from training.datasets.dataset import Dataset, Subset
from training.datasets.fields import Field, TruthBox, chula_slide, read_bccd_boxes, read_bccd_fields, read_chula_fields, read_wbc_masks
from training.datasets.location_review import REVIEWED, Verdict
from training.datasets.single_cells import read_aml_cells, read_pbc_cells
from training.location.annotated import FOLDS, Annotated, Mark

Bytes = NDArray[np.uint8]
ALL_IDB, BCCD, CHULA, WBC = "all_idb", "bccd_fields", "chula_fields", "wbc_masks"
PHANTOMS, COMPOSED, AML, PBC = "phantoms", "composed_fields", "aml_cells", "pbc_cells"
FOLD_OF_BLOCK: Final[Mapping[str, int]] = {
    "olympus-1": 0,
    "olympus-2": 1,
    "olympus-3": 2,
    "canon-1": 0,
    "canon-2": 1,
    "canon-3": 2,
    "canon-4": 0,
    "canon-5": 1,
}
"""Fold of each block of ALL-IDB."""
_RUN: Final = 40
"""Numbers of files in a row that stay together where no slide is known."""
_PBC_RED_CELL: Final = 30.0
_WBC_RED_CELL: Final = 22.0
_PHANTOMS: Final = 150
_FIRST_SEED: Final = 50_000
"""Phantoms that are learned have seeds from this one on; those that are measured have smaller ones."""
_CROPS: Final = 600


def all_idb(root: Path) -> Iterator[Annotated]:
    """Fields of ALL-IDB1: lymphoblasts, and everything else that is violet by its kind."""
    fields = {name: f for name, f in read_fields(root).items() if not f.is_copy}
    points = read_points(root)
    for name, field in fields.items():
        marks = [Mark(p.x, p.y, kind_of_point(p.kind)) for p in points if p.field == name]
        marks += [Mark(x, y, kind) for x, y, kind in UNMARKED.get(name, ())]
        yield Annotated(name, ALL_IDB, FOLD_OF_BLOCK[field.fold], _read(field.path), tuple(marks), platelets_are_marked=True)


def kind_of_point(kind: str) -> Kind:
    """What a point of ALL-IDB1 is to the locator: cells that are cut off, or of unknown class, are cells."""
    if kind in NO_CELL:
        return Kind.PLATELET
    return Kind.SMUDGED if kind == SMUDGED else Kind.NUCLEATED


def bccd_fields(root: Path) -> Iterator[Annotated]:
    """Fields of BCCD with boxes of white cells and platelets."""
    platelets = read_bccd_boxes(root, "Platelets")
    for number, field in enumerate(read_bccd_fields(root)):
        pixels = _read(field.path)
        marks = (*_of_boxes(field), *(Mark(*_middle(b), Kind.PLATELET) for b in platelets[field.path.stem]))
        yield Annotated(field.path.stem, BCCD, number // _RUN % FOLDS, pixels, marks, platelets_are_marked=True)


def chula_fields(root: Path) -> Iterator[Annotated]:
    """Fields of Chula with boxes of white cells."""
    fields = read_chula_fields(root)
    slides = sorted({chula_slide(f.path.stem) for f in fields})
    for field in fields:
        yield Annotated(field.path.stem, CHULA, slides.index(chula_slide(field.path.stem)) % FOLDS, _read(field.path), _of_boxes(field))


def wbc_masks(root: Path) -> Iterator[Annotated]:
    """Single cells with exact masks of cell and nucleus."""
    for number, (path, mask) in enumerate(read_wbc_masks(root)):
        with Image.open(path.with_name(path.name.replace("_image", "_mask"))) as image:
            nucleus = np.asarray(image.convert("L")) > 200
        rows, columns = np.nonzero(mask)
        mark = Mark(float(columns.mean()), float(rows.mean()), Kind.NUCLEATED, mask=mask, nucleus=nucleus)
        yield Annotated(path.stem, WBC, number // _RUN % FOLDS, _read(path), (mark,), red_cell_radius=_WBC_RED_CELL, is_crop=True)


def phantoms(_: Path) -> Iterator[Annotated]:
    """Drawn fields of every kind: strong and weak stains, uneven and dim light, blur, noise, crowded and touching cells."""
    for number in range(_PHANTOMS):
        drawn = smear_field(_FIRST_SEED + number, _options(np.random.default_rng([7, number])))
        marks = tuple(Mark(cell.center_x, cell.center_y, Kind.NUCLEATED, mask=drawn.mask == index) for index, cell in enumerate(drawn.cells, start=1))
        radius = drawn.options.cell_radius / 1.2
        yield Annotated(f"phantom_{number:03d}", PHANTOMS, number % FOLDS, drawn.image, marks, red_cell_radius=radius)


def _options(rng: np.random.Generator) -> PhantomOptions:
    radius = float(rng.uniform(14, 44))
    kinds = tuple(CellKind) if rng.random() < 0.6 else (CellKind.BLAST,)
    room = 0.16 * 1024 * 768 / (np.pi * (1.4 * radius) ** 2)
    return PhantomOptions(
        width=1024,
        height=768,
        cells=int(rng.integers(2, max(4, min(60, int(room) + 1)))),
        kinds=kinds,
        cell_radius=radius,
        red_cell_density=float(rng.choice([0.0, 0.1, 0.35, 0.5, 0.65])),
        platelets=int(rng.choice([0, 12, 40, 100])),
        blur_sigma=float(rng.choice([0.8, 2.0, 4.0, 0.15 * radius])),
        stain=float(rng.uniform(0.6, 1.5)),
        stain_hue=float(rng.uniform(-1, 1)),
        light=float(rng.uniform(0, 0.5)),
        brightness=float(rng.uniform(0.7, 1.2)),
        noise=float(rng.choice([0.0, 2.0, 10.0, 25.0])),
        touching=float(rng.choice([0.2, 0.6, 1.0])),
        label=False,
    )


def composed_fields(root: Path) -> Iterator[Annotated]:
    """Fields composed of the crops of one training patient."""
    dataset = _learned_aml_cells(root)
    folds = _folds_of_groups(dataset)
    for field in compose_fields(dataset, Composition(training=5), Subset.TRAIN):
        fold = folds[field.patient]
        marks = tuple(Mark(c.x, c.y, Kind.NUCLEATED) for c in field.cells)
        yield Annotated(field.key, COMPOSED, fold, field.pixels, marks, red_cell_radius=field.scale * AML_RED_CELL)


def aml_cells(root: Path) -> Iterator[Annotated]:
    """Crops of training patients, as they are located today."""
    yield from _crops(_learned_aml_cells(root), AML_RED_CELL)


def pbc_cells(root: Path) -> Iterator[Annotated]:
    """Crops of normal cells, as they are located today; crops of platelets show no nucleated cell."""
    yield from _crops(read_pbc_cells(root), _PBC_RED_CELL)


def _learned_aml_cells(root: Path) -> Dataset:
    dataset = read_aml_cells(root)
    return replace(dataset, images=tuple(i for i in dataset.images if i.subset is Subset.TRAIN))


def _folds_of_groups(dataset: Dataset) -> dict[str, int]:
    """Fold of every patient, the same for crops and for composed fields."""
    return {group: number % FOLDS for number, group in enumerate(sorted({i.group for i in dataset.images}))}


def _crops(dataset: Dataset, red_cell: float) -> Iterator[Annotated]:
    folds = _folds_of_groups(dataset)
    images = [dataset.images[i] for i in np.random.default_rng(3).permutation(len(dataset.images))[:_CROPS]]
    for number, image in enumerate(images):
        pixels = _read(image.path)
        cells = locate_cells(pixels).cells
        fold = folds[image.group] if len(folds) >= FOLDS else number % FOLDS
        platelet = "platelet" in image.classes
        marks = tuple(Mark(c.center_x, c.center_y, Kind.NUCLEATED) for c in cells)
        if platelet:
            marks = tuple(replace(m, kind=Kind.PLATELET) for m in marks)
        yield Annotated(image.key, dataset.name, fold, pixels, marks, red_cell_radius=red_cell, is_crop=True)


SOURCES: Final[Mapping[str, Callable[[Path], Iterator[Annotated]]]] = {
    ALL_IDB: all_idb,
    BCCD: bccd_fields,
    CHULA: chula_fields,
    WBC: wbc_masks,
    PHANTOMS: phantoms,
    COMPOSED: composed_fields,
    AML: aml_cells,
    PBC: pbc_cells,
}
"""All sources by name; each reads the folder of that name, composed fields that of ``aml_cells``, phantoms none."""


def _of_boxes(field: Field) -> tuple[Mark, ...]:
    boxed = tuple(Mark(*_middle(box), Kind.NUCLEATED, box) for box in field.boxes)
    seen = REVIEWED.get(field.path.stem, ())
    left_out = tuple(Mark(x, y, Kind.NUCLEATED) for x, y, what in seen if what is Verdict.UNANNOTATED)
    return (*boxed, *left_out, *(Mark(x, y, Kind.SMUDGED) for x, y, what in seen if what is Verdict.SMUDGE))


def _middle(box: TruthBox) -> tuple[float, float]:
    return (box.left + box.right) / 2, (box.top + box.bottom) / 2


def _read(path: Path) -> Bytes:
    return decode_image(path.read_bytes()).pixels
