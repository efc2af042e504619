"""Outlines of located cells: the network says what surely is cell and what may be, and between the two the stain decides.

The network knows which of several cells that touch a pixel is of. The stain knows pale cytoplasm, of which the network is seldom sure.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence, Set
from dataclasses import replace
from typing import Final

import cv2
import numpy as np

from services.patching import stain
from services.patching.locator_maps import MappedCell, largest_part
from services.patching.working_stain import WorkingStain

IN_DOUBT: Final = 0.1
"""The stain is asked where what may be cell exceeds what surely is, beyond the px next to it, by more than this share."""
LEAST_NUCLEUS: Final = 0.1
"""It is not asked where the nucleus is a smaller share of the cell: without a nucleus it has no colours to compare."""
MOST: Final = 500
"""Cells of an image for which the stain is asked, at most, from top to bottom: fields of that many doubtful cells are no smears."""
_NEXT: Final = np.ones((3, 3), np.uint8)
_REACH: Final = 1.3
"""Half of the side of the surroundings that the stain sees, in sides of the box of the cell."""


def completed(cells: Sequence[MappedCell], measured: WorkingStain) -> list[MappedCell]:
    """The cells with all of their cytoplasm.

    Args:
        cells: of a working image.
        measured: the stain of that image.
    """
    doubtful = set(itertools.islice((i for i, cell in enumerate(cells) if _is_in_doubt(cell)), MOST))
    return list(_completed(cells, doubtful, measured)) if doubtful else list(cells)


def _completed(cells: Sequence[MappedCell], doubtful: Set[int], measured: WorkingStain) -> Iterator[MappedCell]:
    whole = measured.red_cells.shape
    for index, cell in enumerate(cells):
        if index not in doubtful:
            yield cell
            continue
        height, width = cell.mask.shape
        rows, first_row = _around(cell.top, height, whole[0])
        columns, first_column = _around(cell.left, width, whole[1])
        own = np.s_[cell.top - first_row : cell.top - first_row + height, cell.left - first_column : cell.left - first_column + width]
        nucleus = np.zeros((rows.stop - rows.start, columns.stop - columns.start), bool)
        nucleus[own] = cell.nucleus
        by_stain = stain.cell_mask(measured.density[rows, columns], nucleus, measured.red_cells[rows, columns])[own]
        whole_cell = replace(cell, mask=largest_part(cell.mask | (cell.possible & by_stain)))
        yield whole_cell if whole_cell.area else cell


def _is_in_doubt(cell: MappedCell) -> bool:
    near = cv2.dilate(cell.mask.astype(np.uint8), _NEXT) > 0
    beyond = np.count_nonzero(cell.possible & ~near)
    return bool(beyond > IN_DOUBT * cell.area and np.count_nonzero(cell.nucleus) > LEAST_NUCLEUS * cell.area)


def _around(start: int, length: int, end: int) -> tuple[slice, int]:
    margin = round((_REACH - 0.5) * length)
    first = max(0, start - margin)
    return slice(first, min(end, start + length + margin)), first
