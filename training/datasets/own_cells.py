"""A laboratory's own cells: one table, one image per cell."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from training.datasets.dataset import Dataset, GroupKind, ImageKind, LabelledImage, Subset, file_named
from training.datasets.tables import read_rows
from training.errors import DatasetError

OWN_CELLS: Final = "own_cells"
TABLE: Final = "cells.csv"
COLUMNS: Final = ("path", "cell_class", "patient_id", "is_blast")
OPTIONAL: Final = ("subset",)
_LABELS: Final = {"1": 1, "0": 0, "": None}
_SUBSETS: Final = {s.value: s for s in Subset if s is not Subset.KEPT_BACK}


def read_own_cells(root: Path) -> Dataset:
    """Read ``cells.csv``: path, cell_class, patient_id, is_blast (1, 0, or empty for ambiguous), and subset if you like.

    Where there is no column ``subset`` (train, calibration, test), patients are given to subsets by ``with_subsets``.

    Raises:
        DatasetError: the table or an image is missing, or a value makes no sense.
    """
    images = []
    for number, row in enumerate(read_rows(root / TABLE, COLUMNS, OPTIONAL), start=2):
        where = f"{root / TABLE}, row {number}"
        if row["is_blast"] not in _LABELS:
            raise DatasetError(f"{where}: is_blast is 1, 0 or empty, not {row['is_blast']!r}.")
        if not row["patient_id"]:
            raise DatasetError(f"{where}: no patient_id; cells without a patient cannot be split.")
        subset = _SUBSETS.get(row.get("subset", ""))
        if subset is None:
            raise DatasetError(f"{where}: a subset is train, calibration or test, not {row['subset']!r}.")
        label = _LABELS[row["is_blast"]]
        path = file_named(root, row["path"], f"{TABLE} (row {number})")
        images.append(LabelledImage(path, OWN_CELLS, row["path"], (row["cell_class"],), row["patient_id"], subset, is_blast=label))
    classes = tuple(sorted({name for image in images for name in image.classes}))
    return Dataset(OWN_CELLS, ImageKind.CELL, classes, GroupKind.PATIENT, tuple(images))
