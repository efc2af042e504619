"""Tests of the one list of patients."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from training.datasets.dataset import Subset
from training.datasets.patients import BLAST_CLASS, LIST_FILE, SUBSET_SIZES, assign_subsets, load_subsets, main


def _cells(blasts_of: dict[str, int]) -> list[tuple[str, str]]:
    normal = [(patient, "lymphocyte") for patient in blasts_of]
    return normal + [(patient, BLAST_CLASS) for patient, count in blasts_of.items() for _ in range(count)]


@pytest.fixture
def labels(shared_data: Path) -> Path:
    return shared_data / "aml_cells" / "labels.csv"


def _rows(labels: Path) -> list[tuple[str, str]]:
    with labels.open(newline="", encoding="utf-8") as file:
        return [(row["patient_id"], row["cell_class"]) for row in csv.DictReader(file)]


def test_sizes_of_the_splits() -> None:
    splits = load_subsets()
    assert len(splits) == 82
    assert Counter(splits.values()) == {Subset.TRAIN: 46, Subset.CALIBRATION: 18, Subset.TEST: 18}
    assert dict(SUBSET_SIZES) == dict(Counter(splits.values()))


def test_every_patient_is_listed_once_in_order() -> None:
    with LIST_FILE.open(newline="", encoding="utf-8") as file:
        patients = [row["patient_id"] for row in csv.DictReader(file)]
    assert patients == sorted(set(patients))


@pytest.mark.shared_data
def test_the_committed_list_is_what_the_labels_give(labels: Path) -> None:
    assert load_subsets() == assign_subsets(_rows(labels))


@pytest.mark.shared_data
def test_every_split_holds_patients_with_and_without_blasts(labels: Path) -> None:
    blasts: Counter[str] = Counter()
    for patient, cell_class in _rows(labels):
        blasts[patient] += cell_class == BLAST_CLASS
    for subset in SUBSET_SIZES:
        patients = [p for p, s in load_subsets().items() if s is subset]
        without = sum(blasts[p] == 0 for p in patients)
        assert 0 < without < len(patients)


@pytest.mark.shared_data
def test_the_check_tells_labels_that_changed(labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(labels)]) == 0
    assert "agrees" in capsys.readouterr().out
    changed = tmp_path / "labels.csv"
    changed.write_text("patient_id,cell_class\n" + "".join(f"{p},{c}\n" for p, c in _rows(labels) if p != "P00"))
    assert main([str(changed)]) == 1
    assert "DIFFERS" in capsys.readouterr().out


def test_every_stratum_of_blast_counts_is_spread_over_the_splits() -> None:
    blasts_of = {f"P{i:02}": i for i in range(82)}
    splits = assign_subsets(_cells(blasts_of))
    assert Counter(splits.values()) == dict(SUBSET_SIZES)
    ordered = [splits[f"P{i:02}"] for i in range(82)]
    start = 0
    for size in [10] + [9] * 8:  # 82 patients in nine runs of neighbours
        run = Counter(ordered[start : start + size])
        assert run == {Subset.CALIBRATION: 2, Subset.TEST: 2, Subset.TRAIN: size - 4}
        start += size


def test_the_order_of_the_cells_does_not_matter() -> None:
    cells = _cells({f"P{i:02}": i % 7 for i in range(82)})
    assert assign_subsets(cells) == assign_subsets(cells[::-1])


def test_patients_without_blasts_are_kept() -> None:
    assert len(assign_subsets([(f"P{i:02}", "monocyte") for i in range(82)])) == 82


def test_labels_of_another_program_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{patient};{name}" for patient, name in _cells({f"P{i:02d}": i for i in range(40)})]
    (tmp_path / "labels.csv").write_bytes("\r\n".join(["\ufeffpatient_id; cell_class", *rows]).encode())
    assert main([str(tmp_path / "labels.csv")]) == 1
    assert "40 patients" in capsys.readouterr().out
    (tmp_path / "labels.csv").write_text("patient,cell_class\n", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"Found: patient, cell_class\. Needed: patient_id, cell_class"):
        main([str(tmp_path / "labels.csv")])
