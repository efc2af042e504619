"""Images whose nucleated cells are known: what the locator learns from, in px of the image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.patching.locator_maps import Kind
from training.datasets.fields import TruthBox

Bytes = NDArray[np.uint8]
Mask = NDArray[np.bool_]
FOLDS: Final = 3
"""Parts into which every source is divided by session, block, slide or patient."""


@dataclass(frozen=True)
class Mark:
    """A cell, a smudged cell, or a platelet or debris.

    Attributes:
        x, y: inside it, px.
        kind: what it is.
        box: around it, where someone drew one.
        mask: bool (H, W), the whole cell, where it is known exactly.
        nucleus: bool (H, W), its nucleus, where it is known exactly.
    """

    x: float
    y: float
    kind: Kind
    box: TruthBox | None = None
    mask: Mask | None = field(default=None, repr=False, compare=False)
    nucleus: Mask | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, eq=False)
class Annotated:
    """An image with marks for all of its nucleated cells.

    Attributes:
        key: unique in its source.
        source: the data set.
        fold: 0..FOLDS-1, decided by what must stay whole.
        pixels: uint8 (H, W, 3).
        marks: every nucleated cell, those that the border cuts among them.
        platelets_are_marked: whether all platelets and all debris are marked too; else nothing is known of them.
        red_cell_radius: px, where it is known; None where it is measured.
        is_crop: whether it shows one cell and its surroundings.
    """

    key: str
    source: str
    fold: int
    pixels: Bytes
    marks: tuple[Mark, ...]
    platelets_are_marked: bool = False
    red_cell_radius: float | None = None
    is_crop: bool = False
