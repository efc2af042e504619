"""A window of a sample, with a label for every pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Float = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Window:
    """A part of a sample.

    Attributes:
        pixels: uint8 (S, S, 3).
        owners: int16 (S, S), see ``Sample``.
        nuclei, unsure: bool (S, S).
        x, y: float32 (M,), positions of all marks of the sample in px of the window, also outside it, and of cells that were pasted.
        kinds: int8 (M,), of these.
        areas: float32 (M,), px of the whole cell of each, also outside the window; 0 where it has no mask.
        red_cell_radius: px.
        platelets_are_marked, nuclei_are_known: see ``Sample``.
    """

    pixels: Bytes
    owners: NDArray[np.int16]
    nuclei: Mask
    unsure: Mask
    x: Float
    y: Float
    kinds: NDArray[np.int8]
    areas: Float
    red_cell_radius: float
    platelets_are_marked: bool
    nuclei_are_known: bool
