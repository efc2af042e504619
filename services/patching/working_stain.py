"""The stain of what a locator sees: optical densities, violet index and red cells of the working image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.patching import stain
from services.patching.working_image import BACKGROUND, WorkingImage

Mask = NDArray[np.bool_]
_SMOOTHING: Final = 1.0
_LEAST_RED_CELLS: Final = 50


@dataclass(frozen=True, eq=False)
class WorkingStain:
    """Measured when it is first asked for; the maps are float32 or bool (height, width) of the part that shows the image.

    Attributes:
        seen_as: the working image.
        threshold: violet index of nuclei.
    """

    seen_as: WorkingImage
    threshold: float

    @cached_property
    def density(self) -> stain.Float:
        """Optical density, float32 (height, width, 3)."""
        pixels = self.seen_as.pixels[: self.seen_as.height, : self.seen_as.width]
        return stain.optical_density(pixels, np.full(3, BACKGROUND, np.float32))

    @cached_property
    def violet(self) -> stain.Float:
        """Violet index, smoothed."""
        return np.asarray(cv2.GaussianBlur(stain.violet_index(self.density), (0, 0), _SMOOTHING), np.float32)

    @cached_property
    def red_cells(self) -> Mask:
        """Pixels that absorb light and are not violet: mostly red cells, also cytoplasm."""
        return np.asarray(stain.foreground_mask(self.density) & (self.violet < self.threshold), bool)

    @cached_property
    def red_cell_density(self) -> float | None:
        """Median of the summed density of the red cells; None where hardly any are seen."""
        if np.count_nonzero(self.red_cells) < _LEAST_RED_CELLS:
            return None
        return float(np.median(stain.total_density(self.density)[self.red_cells]))
