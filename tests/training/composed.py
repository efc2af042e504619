"""Single cells of a few patients, drawn, in the layout of ``aml_cells``: what small fields are composed of."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from services.common.phantom import CellKind, single_cell
from training.datasets.dataset import Dataset, GroupKind, ImageKind, LabelledImage, Subset
from training.datasets.patients import load_subsets

TABLE = "path,cell_class,patient_id,patient_diagnosis"
SUBSETS = (Subset.TRAIN, Subset.TRAIN, Subset.CALIBRATION, Subset.TEST)


def drawn_cells(folder: Path, cells: int = 6, patients: int = len(SUBSETS)) -> Dataset:
    """Up to four patients with as many cells each, every other a blast; the last of each is ambiguous."""
    folder.mkdir(parents=True, exist_ok=True)
    images = []
    for number, subset in enumerate(SUBSETS[:patients]):
        for cell in range(cells):
            kind = CellKind.BLAST if cell % 2 else CellKind.LYMPHOCYTE
            path = folder / f"P{number:02d}_{cell}.png"
            Image.fromarray(single_cell(100 * number + cell, kind, side=264, cell_radius=38).image).save(path)
            label = None if cell == cells - 1 else cell % 2
            images.append(LabelledImage(path, "aml_cells", path.name, (kind.name.lower(),), f"P{number:02d}", subset, is_blast=label))
    return Dataset("aml_cells", ImageKind.CELL, ("blast", "lymphocyte"), GroupKind.PATIENT, tuple(images))


def write_aml_cells(folder: Path, cells: int = 6) -> Path:
    """Four patients of the committed list in the layout of ``aml_cells``: two train, one calibrates, one tests."""
    given = load_subsets()
    names = [p for s, n in ((Subset.TRAIN, 2), (Subset.CALIBRATION, 1), (Subset.TEST, 1)) for p in [p for p in given if given[p] is s][:n]]
    rows = [TABLE]
    for number, patient in enumerate(names):
        for cell in range(cells):
            name = ("lymphocyte", "blast_no_lineage_spec")[cell % 2]
            image = single_cell(100 * number + cell, CellKind.BLAST if cell % 2 else CellKind.LYMPHOCYTE, side=264, cell_radius=38).image
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / name / f"{patient}_{cell}.jpg", quality=95)
            rows.append(f"{name}/{patient}_{cell}.jpg,{name},{patient},AML")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder
