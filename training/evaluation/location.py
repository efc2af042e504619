"""How well nucleated cells are located: on fields with boxes and on cells with masks.

python -m training.evaluation.location --data DIR
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from services.common.image_codec import decode_image
from services.patching.cells import LocatedCell, central_cell, locate_cells
from training.datasets.fields import Field, read_bccd_fields, read_chula_fields, read_wbc_masks


def match(cells: Sequence[LocatedCell], field: Field) -> int:
    """How many truth boxes have a located centre inside, one to one."""
    free = list(cells)
    hits = 0
    for box in field.boxes:
        inside = next((c for c in free if box.contains(c.center_x, c.center_y)), None)
        if inside is not None:
            free.remove(inside)
            hits += 1
    return hits


def score_fields(fields: Sequence[Field]) -> str:
    """Recall and precision over fields."""
    hits = located = truth = 0
    for field in fields:
        cells = locate_cells(decode_image(field.path.read_bytes()).pixels).cells
        hits += match(cells, field)
        located += len(cells)
        truth += len(field.boxes)
    return f"recall {hits / truth:.3f} ({hits}/{truth}), precision {hits / max(1, located):.3f} ({hits}/{located})"


def score_masks(root: Path) -> str:
    """Error of radius and centre against masks, as shares of the true radius."""
    radii, centres, missed = [], [], 0
    for path, mask in read_wbc_masks(root):
        cell = central_cell(locate_cells(decode_image(path.read_bytes()).pixels).cells, *mask.shape)
        if cell is None:
            missed += 1
            continue
        radius = float(np.sqrt(mask.sum() / np.pi))
        rows, columns = np.nonzero(mask)
        radii.append(abs(cell.radius / radius - 1))
        centres.append(float(np.hypot(columns.mean() - cell.center_x, rows.mean() - cell.center_y)) / radius)
    low, high = np.percentile(radii, [50, 90])
    return f"radius error median {low:.3f}, 90th percentile {high:.3f}; centre error median {np.median(centres):.3f}; not found {missed}"


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds bccd_fields, chula_fields and wbc_masks")
    data = parser.parse_args().data
    print("bccd_fields:", score_fields(read_bccd_fields(data / "bccd_fields")))
    print("chula_fields:", score_fields(read_chula_fields(data / "chula_fields")))
    print("wbc_masks:", score_masks(data / "wbc_masks"))


if __name__ == "__main__":
    main()
