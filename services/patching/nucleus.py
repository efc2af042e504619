"""A nucleus: a mask with its position in the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.patching import stain

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Nucleus:
    """All lobes of one nucleus, or a part of it: a mask, bool (h, w), with its position in the image in px."""

    mask: Mask
    left: int
    top: int
    mean: float = 0.0
    """Mean of the map of nuclear stain in the mask."""
    hull_mean: float = 0.0
    """Mean of that map in the convex hull of the mask, between the lobes too."""

    @property
    def radius(self) -> float:
        """Radius in px of the disk of its area."""
        return stain.equivalent_radius(self.mask)

    @property
    def window(self) -> tuple[slice, slice]:
        """Where the mask lies in the image."""
        height, width = self.mask.shape
        return np.s_[self.top : self.top + height, self.left : self.left + width]


def union(a: Nucleus, b: Nucleus) -> Nucleus:
    """Both masks as one, without means."""
    left, top, right, bottom = common_box(a, b)
    mask = np.zeros((bottom - top, right - left), bool)
    for n in (a, b):
        mask[n.top - top : n.top - top + n.mask.shape[0], n.left - left : n.left - left + n.mask.shape[1]] |= n.mask
    return Nucleus(mask, left, top)


def common_box(a: Nucleus, b: Nucleus) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the box around both, in px of the image."""
    left, top = min(a.left, b.left), min(a.top, b.top)
    right = max(a.left + a.mask.shape[1], b.left + b.mask.shape[1])
    return left, top, right, max(a.top + a.mask.shape[0], b.top + b.mask.shape[0])
