"""The one list of the 82 ``aml_cells`` patients: train, calibration or test.

Committed as ``aml_cells_patients.csv``. Every recipe, library and figure reads it; nothing else splits its patients.
``dl4all study patient-split LABELS.csv`` checks that the list is what ``draw_subsets`` makes of the labels.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from training.command import explained, program_parser
from training.datasets.dataset import Subset
from training.datasets.splits import draw_subsets
from training.datasets.tables import read_rows

LIST_FILE: Final = Path(__file__).with_name("aml_cells_patients.csv")
BLAST_CLASS: Final = "blast_no_lineage_spec"


SUBSET_SIZES: Final[Mapping[Subset, int]] = {Subset.TRAIN: 46, Subset.CALIBRATION: 18, Subset.TEST: 18}
"""What a patient is for. TRAIN patients also make the reference library."""


def load_subsets() -> dict[str, Subset]:
    """Read the committed list: patient id to subset."""
    with LIST_FILE.open(newline="", encoding="utf-8") as file:
        return {row["patient_id"]: Subset(row["split"]) for row in csv.DictReader(file)}


def assign_subsets(cells: Iterable[tuple[str, str]]) -> dict[str, Subset]:
    """Draw the list from (patient id, cell class) of every cell, stratified by blast count; see ``draw_subsets``."""
    blasts = [(patient, cell_class == BLAST_CLASS) for patient, cell_class in cells]
    return draw_subsets(blasts, SUBSET_SIZES[Subset.CALIBRATION] // 2)


def _read_cells(labels: Path) -> list[tuple[str, str]]:
    return [(row["patient_id"], row["cell_class"]) for row in read_rows(labels, ("patient_id", "cell_class"))]


@explained
def main(arguments: Sequence[str] | None = None) -> int:
    """Check (or, with --write, write) the list against a labels file; 1 if they differ."""
    parser = program_parser("patient-split", __doc__)
    parser.add_argument("labels", type=Path, help="CSV file of all cells, with patient_id and cell_class")
    parser.add_argument("--write", action="store_true", help="write the list anew before it is checked")
    given = parser.parse_args(arguments)
    subsets = assign_subsets(_read_cells(given.labels))
    if given.write:
        with LIST_FILE.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["patient_id", "split"])
            writer.writerows(sorted(subsets.items()))
    same = subsets == load_subsets()
    print(f"{len(subsets)} patients: {dict(Counter(str(s) for s in subsets.values()))}; the committed list {'agrees' if same else 'DIFFERS'}")
    return 0 if same else 1


if __name__ == "__main__":
    raise SystemExit(main())
