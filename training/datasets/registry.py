"""All data sets by name, recognised by their layout."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.common.image_files import IMAGE_SUFFIXES, is_left_over
from training.datasets import all_idb, all_idb_cells, cnmc, fields, own_cells, single_cells, tissue
from training.datasets.dataset import Dataset
from training.errors import DatasetError


@dataclass(frozen=True)
class Reader:
    """How a data set is read and recognised.

    Attributes:
        read: reads the folder.
        marks: what lies in such a folder and in no other, as glob patterns; one of the alternatives must match in full.
        layout: what a folder must look like, for people.
    """

    read: Callable[[Path], Dataset]
    marks: tuple[tuple[str, ...], ...]
    layout: str


READERS: Final[Mapping[str, Reader]] = {
    own_cells.OWN_CELLS: Reader(own_cells.read_own_cells, ((own_cells.TABLE,),), "cells.csv with path, cell_class, patient_id, is_blast"),
    single_cells.AML_CELLS: Reader(single_cells.read_aml_cells, (("labels.csv", "blast_no_lineage_spec/*.jpg"),), "labels.csv, <cell_class>/*.jpg"),
    single_cells.PBC_CELLS: Reader(single_cells.read_pbc_cells, (("labels.csv", "ig/*.jpg"),), "labels.csv, <cell_class>/*.jpg"),
    tissue.LC25000_TILES: Reader(
        tissue.read_lc25000_tiles, (("labels.csv", "colon_aca"), ("labels.csv", "lung_aca")), "labels.csv, <tissue_class>/*"
    ),
    tissue.ADP: Reader(tissue.read_adp, (("ADP_EncodedLabels_Release1_Flat.csv*", tissue.ADP_IMAGES),), "the label table, img_res_1um_bicubic/*.png"),
    all_idb.ALL_IDB_PATCHES: Reader(all_idb.read_all_idb_patches, (("*patches*.csv",),), f"{all_idb.PATCHES_TABLE}, <image>_patch_<k>.tif"),
    all_idb.ALL_IDB1: Reader(all_idb.read_all_idb1, (("im/*_[01].jpg",), ("Im???_[01].jpg",)), "im/ImNNN_Y.jpg, xyc/ImNNN_Y.xyc"),
    all_idb.ALL_IDB2: Reader(all_idb.read_all_idb2, (("img/*_[01].tif",), ("Im???_[01].tif",), ("???_[01].tif",)), "img/ImNNN_Y.tif"),
    all_idb_cells.ALL_IDB_CELLS: Reader(
        all_idb_cells.read_all_idb_cells, ((all_idb_cells.CELLS_TABLE,),), f"{all_idb_cells.CELLS_TABLE}, cells/<field>_<x>_<y>.tif"
    ),
    cnmc.CNMC: Reader(cnmc.read_cnmc, (("fold_0/all",), ("C-NMC*/fold_0/all",)), "fold_{0,1,2}/{all,hem}/UID_*.bmp"),
    fields.ARIA_FIELDS: Reader(fields.read_aria_fields, (("labels.csv", "Benign", "Pro"),), "labels.csv, {Benign,Early,Pre,Pro}/*.jpg"),
    fields.BCCD_FIELDS: Reader(fields.read_bccd_set, (("JPEGImages", "Annotations"),), "JPEGImages/*.jpg, Annotations/*.xml"),
    fields.CHULA_FIELDS: Reader(fields.read_chula_set, (("images/?-*.jpg", "labels/*.txt"),), "images/*.jpg, labels/*.txt"),
    fields.WBC_MASKS: Reader(fields.read_wbc_set, (("*_image.png", "*_mask.png"),), "NNN_image.png, NNN_mask.png, labels.csv"),
}


def recognise(folder: Path) -> str | None:
    """Name of the data set that lies in a folder, or None."""
    for name, reader in READERS.items():
        if any(all(_is_there(folder, mark) for mark in marks) for marks in reader.marks):
            return name
    return None


def _is_there(folder: Path, mark: str) -> bool:
    """Whether a pattern names something that no system has left; suffixes of images may be in upper or lower case."""
    stem, suffix = os.path.splitext(mark)
    if suffix in IMAGE_SUFFIXES:
        mark = stem + "".join(f"[{c}{c.upper()}]" if c.isalpha() else c for c in suffix)
    return any(not is_left_over(path.name) for path in folder.glob(mark))


def find_folders(folders: Iterable[Path]) -> dict[str, Path]:
    """Data sets by name, in the folders themselves or directly below them.

    Raises:
        DatasetError: a folder is missing or holds no data set that is known, or a data set is there twice.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise DatasetError(f"{folder} is not a folder.")
        name = recognise(folder)
        below = () if name else tuple(p for p in sorted(folder.iterdir()) if p.is_dir() and not is_left_over(p.name))
        here = [(name, folder)] if name else [(n, p) for p in below if (n := recognise(p)) is not None]
        if not here:
            layouts = "\n".join(f"  {n}: {r.layout}" for n, r in READERS.items())
            raise DatasetError(f"{folder} holds no data set that is known here. Known are:\n{layouts}")
        for known, path in here:
            if known in found:
                raise DatasetError(f"{known} is there twice: {found[known]} and {path}.")
            found[known] = path
    return found


def read_dataset(name: str, folder: Path) -> Dataset:
    """Read a data set by name.

    Raises:
        DatasetError: the name is not known, or the folder is not laid out so.
    """
    if name not in READERS:
        raise DatasetError(f"There is no data set {name!r}; known: {', '.join(READERS)}.")
    return READERS[name].read(folder)
