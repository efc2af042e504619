"""Data sets of single-cell images: real names and layouts, labels and patients."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from training.patients import BLAST_CLASS, Split, load_splits

AML_CELLS: Final = "aml_cells"
PBC_CELLS: Final = "pbc_cells"
AMBIGUOUS_CLASSES: Final = frozenset({"promyelocyte"})
"""Neither blast nor normal: promyelocytes are the leukaemic cell of APL patients and normal in others."""
PBC_MATURE_CLASSES: Final = frozenset({"neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil"})


class DatasetError(Exception):
    """A data set is missing, incomplete or not laid out as its description says."""


@dataclass(frozen=True)
class CellImage:
    """One single-cell image.

    Attributes:
        path: the file.
        source: name of the data set.
        cell_class: class name of the data set.
        patient: patient id; empty where the data set has none.
        is_blast: 1 leukaemic blast, 0 normal cell, None ambiguous.
        split: what the patient is for; None outside the patient list.
    """

    path: Path
    source: str
    cell_class: str
    patient: str
    is_blast: int | None
    split: Split | None

    @property
    def key(self) -> str:
        """Identifier that names the image within its source, without a path of any machine."""
        return f"{self.path.parent.name}/{self.path.name}"


def read_aml_cells(root: Path) -> list[CellImage]:
    """Read ``aml_cells``: ``labels.csv`` with path, cell_class, patient_id, patient_diagnosis.

    Raises:
        DatasetError: the labels or an image are missing, or a patient is not in the committed list.
    """
    splits = load_splits()
    cells = []
    for row in _rows(root / "labels.csv"):
        patient = row["patient_id"]
        if patient not in splits:
            raise DatasetError(f"{root}: patient {patient!r} is not in the committed list of patients.")
        cell_class = row["cell_class"]
        label = None if cell_class in AMBIGUOUS_CLASSES else int(cell_class == BLAST_CLASS)
        cells.append(CellImage(_existing(root / row["path"]), AML_CELLS, cell_class, patient, label, splits[patient]))
    return cells


def read_pbc_cells(root: Path) -> list[CellImage]:
    """Read ``pbc_cells``: ``labels.csv`` with path, cell_class, subtype; no patients, no blasts.

    Raises:
        DatasetError: the labels or an image are missing.
    """
    return [CellImage(_existing(root / row["path"]), PBC_CELLS, row["cell_class"], "", 0, None) for row in _rows(root / "labels.csv")]


def _rows(labels: Path) -> list[dict[str, str]]:
    if not labels.is_file():
        raise DatasetError(f"{labels} is missing: is {labels.parent} the folder of this data set?")
    with labels.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise DatasetError(f"{path} is named in the labels but missing.")
    return path
