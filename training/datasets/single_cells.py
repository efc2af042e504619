"""``aml_cells`` and ``pbc_cells``: crops around one cell, with the class of the cell."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from training.datasets.dataset import Dataset, GroupKind, ImageKind, LabelledImage, existing
from training.datasets.patients import BLAST_CLASS, load_subsets
from training.datasets.tables import read_rows
from training.errors import DatasetError

AML_CELLS: Final = "aml_cells"
PBC_CELLS: Final = "pbc_cells"
AMBIGUOUS_CLASSES: Final = frozenset({"promyelocyte"})
"""Neither blast nor normal: promyelocytes are the leukaemic cell of APL patients and normal in others."""
PBC_MATURE_CLASSES: Final = frozenset({"neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil"})
PBC_IMMATURE_CLASS: Final = "ig"
"""Immature granulocytes of patients without leukaemia: the hard negatives."""


def read_aml_cells(root: Path) -> Dataset:
    """Read ``aml_cells``: ``labels.csv`` with path, cell_class, patient_id; subsets from the committed list of patients.

    Raises:
        DatasetError: the labels or an image are missing, or a patient is not in the committed list.
    """
    subsets = load_subsets()
    images = []
    for row in read_rows(root / "labels.csv", ("path", "cell_class", "patient_id", "patient_diagnosis")):
        patient, cell_class = row["patient_id"], row["cell_class"]
        if patient not in subsets:
            raise DatasetError(f"{root}: patient {patient!r} is not in the committed list of patients.")
        label = None if cell_class in AMBIGUOUS_CLASSES else int(cell_class == BLAST_CLASS)
        path = existing(root / row["path"])
        images.append(LabelledImage(path, AML_CELLS, row["path"], (cell_class,), patient, subsets[patient], is_blast=label))
    return Dataset(AML_CELLS, ImageKind.CELL, _classes(images), GroupKind.PATIENT, tuple(images))


def read_pbc_cells(root: Path) -> Dataset:
    """Read ``pbc_cells``: ``labels.csv`` with path, cell_class, subtype; no patients, no blasts.

    Raises:
        DatasetError: the labels or an image are missing.
    """
    images = [
        LabelledImage(existing(root / row["path"]), PBC_CELLS, row["path"], (row["cell_class"],), "", is_blast=0)
        for row in read_rows(root / "labels.csv", ("path", "cell_class", "subtype"))
    ]
    return Dataset(
        PBC_CELLS, ImageKind.CELL, _classes(images), GroupKind.NONE, tuple(images), notes=("normal cells only: a class of its own source",)
    )


def _classes(images: list[LabelledImage]) -> tuple[str, ...]:
    return tuple(sorted({name for image in images for name in image.classes}))
