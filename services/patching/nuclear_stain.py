"""Leave out what a locator took for nucleated cells without the stain of a nucleus: red cells of a colour that it does not know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from services.patching import stain
from services.patching.locator_maps import Kind, MappedCell
from services.patching.working_stain import WorkingStain

LEAST_VIOLET: Final = 0.85
"""Least violet index of the most violet quarter of a nucleus, as a share of the threshold of the image. Of 1,426 cells of six sets 3 have less."""
LEAST_DARKNESS: Final = 2.2
"""A nucleus that is not violet (blue-black) is this many times as dense as the red cells; red cells that overlap have at most 2.0."""
_QUARTER: Final = 75
_LEAST_NUCLEUS: Final = 5


def with_nuclei(cells: Sequence[MappedCell], measured: WorkingStain) -> list[MappedCell]:
    """The cells, without those that are called nucleated but have neither violet nor very dark pixels where the nucleus should be.

    Args:
        cells: of a working image, of all kinds.
        measured: the stain of that image.
    """
    return [c for c in cells if c.kind is not Kind.NUCLEATED or _has_nucleus(c, measured)]


def _has_nucleus(cell: MappedCell, measured: WorkingStain) -> bool:
    height, width = cell.mask.shape
    box = np.s_[cell.top : cell.top + height, cell.left : cell.left + width]
    nucleus = cell.nucleus & cell.mask
    if np.count_nonzero(nucleus) < _LEAST_NUCLEUS:
        nucleus = cell.mask
    if float(np.percentile(measured.violet[box][nucleus], _QUARTER)) >= LEAST_VIOLET * measured.threshold:
        return True
    red_cells = measured.red_cell_density
    return red_cells is not None and float(np.median(stain.total_density(measured.density[box])[nucleus])) >= LEAST_DARKNESS * red_cells
