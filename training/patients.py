"""The one list of the 82 ``aml_cells`` patients: who trains, who calibrates, who tests.

Committed as ``aml_cells_patients.csv``. Every recipe, library and figure reads it; nothing else splits patients.
``python -m training.patients LABELS.csv`` checks that the list is what ``assign_splits`` makes of the labels.
"""

from __future__ import annotations

import csv
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Final

import numpy as np

LIST_FILE: Final = Path(__file__).with_name("aml_cells_patients.csv")
BLAST_CLASS: Final = "blast_no_lineage_spec"
_SEED: Final = 2021


class Split(StrEnum):
    """What a patient is for. TRAIN patients also make the reference library."""

    TRAIN = "train"
    CALIBRATION = "calibration"
    TEST = "test"


SPLIT_SIZES: Final[Mapping[Split, int]] = {Split.TRAIN: 46, Split.CALIBRATION: 18, Split.TEST: 18}


def load_splits() -> dict[str, Split]:
    """Read the committed list: patient id to split."""
    with LIST_FILE.open(newline="", encoding="utf-8") as file:
        return {row["patient_id"]: Split(row["split"]) for row in csv.DictReader(file)}


def assign_splits(cells: Iterable[tuple[str, str]]) -> dict[str, Split]:
    """Draw the list, stratified by blast count.

    Patients are ordered by their number of blasts (ties by id) and cut into runs of about nine neighbours; of each
    run two go to calibration and two to test, drawn with a fixed seed.

    Args:
        cells: (patient id, cell class) of every cell.
    """
    blasts: Counter[str] = Counter()
    for patient, cell_class in cells:
        blasts[patient] += cell_class == BLAST_CLASS
    ordered = sorted(blasts, key=lambda p: (blasts[p], p))
    generator = np.random.default_rng(_SEED)
    splits = dict.fromkeys(ordered, Split.TRAIN)
    held_out = SPLIT_SIZES[Split.CALIBRATION] // 2
    for run in np.array_split(np.array(ordered), held_out):
        drawn = generator.permutation(run)
        splits.update(dict.fromkeys(drawn[:2].tolist(), Split.CALIBRATION))
        splits.update(dict.fromkeys(drawn[2:4].tolist(), Split.TEST))
    return splits


def _read_cells(labels: Path) -> list[tuple[str, str]]:
    with labels.open(newline="", encoding="utf-8") as file:
        return [(row["patient_id"], row["cell_class"]) for row in csv.DictReader(file)]


def main(arguments: list[str]) -> int:
    """Check (or, with --write, write) the list against a labels file."""
    labels = Path(arguments[0])
    splits = assign_splits(_read_cells(labels))
    if "--write" in arguments:
        with LIST_FILE.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["patient_id", "split"])
            writer.writerows(sorted(splits.items()))
    same = splits == load_splits()
    print(f"{len(splits)} patients: {dict(Counter(str(s) for s in splits.values()))}; the committed list {'agrees' if same else 'DIFFERS'}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
