"""C-NMC 2019 (ISBI 2019 challenge): single cells on black, by subject; on request, never part of the project."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from services.common.image_files import is_left_over, shown
from training.datasets.dataset import Dataset, GroupKind, ImageKind, LabelledImage, Subset, existing, images_in
from training.datasets.tables import read_rows
from training.errors import DatasetError

CNMC: Final = "cnmc"
NORMAL, LEUKAEMIC = "hem", "all"
FOLDS: Final = ("fold_0", "fold_1", "fold_2")
PRELIMINARY_LABELS: Final = "C-NMC_test_prelim_phase_data_labels.csv"
PRELIMINARY_IMAGES: Final = "C-NMC_test_prelim_phase_data"
_NAME: Final = re.compile(r"UID_(?P<subject>H?\d+)_(?P<image>\d+)_(?P<cell>\d+)_(?P<label>all|hem)")
_SUBJECT: Final = re.compile(r"UID_(?P<subject>H?\d+)(?:_.*)?")


def read_cnmc(root: Path) -> Dataset:
    """Read the training folds and, where it is there, the preliminary test set.

    Layout: ``fold_{0,1,2}/{all,hem}/UID_<subject>_<image>_<cell>_<label>.bmp``, possibly one folder deeper; the preliminary test
    as ``C-NMC_test_prelim_phase_data/<n>.bmp`` with ``..._labels.csv`` (Patient_ID, new_names, labels; 1 = ALL). The group is the
    subject token alone; test subjects are a subset of their own.

    Raises:
        DatasetError: a fold is missing, a name is of another form, a label contradicts its folder, or a subject stands in the
            training folds and in the preliminary test.
    """
    base = (
        root if (root / FOLDS[0]).is_dir() else next((p.parent for p in sorted(root.glob(f"*/{FOLDS[0]}")) if not is_left_over(p.parent.name)), root)
    )
    images = [image for fold in FOLDS for label in (LEUKAEMIC, NORMAL) for image in _fold_images(base / fold / label, fold, label)]
    tables = (root / PRELIMINARY_LABELS, *(p for p in sorted(root.glob(f"*/{PRELIMINARY_LABELS}")) if not is_left_over(p.parent.name)))
    table = next((p for p in tables if p.is_file()), None)
    if table is not None:
        test = _preliminary_images(table)
        shared = {i.group for i in images} & {i.group for i in test}
        if shared:
            raise DatasetError(f"{table}: the subjects {sorted(shared)[:5]} stand in the training folds as well.")
        images += test
    return Dataset(CNMC, ImageKind.CELL, (NORMAL, LEUKAEMIC), GroupKind.SUBJECT, tuple(images))


def subject_of(name: str) -> str:
    """Subject token of a file name or patient id, with the H of normal subjects.

    Raises:
        DatasetError: the name is of another form.
    """
    found = _SUBJECT.fullmatch(name.strip().removesuffix(".bmp"))
    if found is None:
        raise DatasetError(f"{name!r} does not begin with UID_<subject>.")
    return found["subject"]


def _fold_images(folder: Path, fold: str, label: str) -> list[LabelledImage]:
    images = []
    for path in images_in(folder, (".bmp",)):
        found = _NAME.fullmatch(path.stem)
        if found is None or found["label"] != label:
            raise DatasetError(f"{shown(path)} is not called UID_<subject>_<image>_<cell>_{label}.bmp.")
        key = f"{fold}/{label}/{path.name}"
        images.append(LabelledImage(path, CNMC, key, (label,), found["subject"], Subset.TRAIN, fold, int(label == LEUKAEMIC)))
    return images


def _preliminary_images(table: Path) -> list[LabelledImage]:
    images = []
    folder = table.parent / PRELIMINARY_IMAGES
    for row in read_rows(table, ("Patient_ID", "new_names", "labels")):
        if row["labels"].strip() not in ("0", "1"):
            raise DatasetError(f"{table}: the label of {row['new_names']} is not 0 or 1.")
        is_blast = int(row["labels"])
        name = row["new_names"].strip()
        path = existing(folder / name, table.name)
        images.append(
            LabelledImage(path, CNMC, name, ((NORMAL, LEUKAEMIC)[is_blast],), subject_of(row["Patient_ID"]), Subset.TEST, "preliminary", is_blast)
        )
    return images
