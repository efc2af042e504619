"""When an image as a whole is too poor for a negative: blurred, badly exposed, crowded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.gateway.decision import Reason

MAX_BLUR_TO_RED_CELL: Final = 0.1
"""Blur, in radii of a red cell, above which chromatin cannot be seen. In-focus fields of two hospitals have 0.04 to 0.09; a phantom
that is blurred by 0.12 radii has 0.11 (docs/location.md)."""
MAX_OVEREXPOSED: Final = 0.6
"""Share of saturated pixels above which more than the background is saturated: half of a thin smear is background."""
MAX_UNDEREXPOSED: Final = 0.05
"""Share of black pixels: nothing of a stained smear is black."""
MAX_COVERED: Final = 0.8
"""Share of the image under cells above which cells overlap; good fields have up to 0.7 (docs/location.md)."""
MAX_INK: Final = 0.02
"""Share of the image under ink, pointers and text above which they may hide cells; a scale bar with its number covers 0.007 (docs/location.md)."""


@dataclass(frozen=True)
class Quality:
    """Measurements of patching on an image.

    Attributes:
        blur: of the sharpest edges, px; NaN where there are none.
        red_cell_radius: px; 0 where none were seen.
        overexposed, underexposed, covered, ink: shares 0..1.
    """

    blur: float
    red_cell_radius: float
    overexposed: float
    underexposed: float
    covered: float
    ink: float = 0.0


def poor_reasons(quality: Quality) -> tuple[Reason, ...]:
    """Why an image is too poor for a negative; empty where it is not."""
    found = {
        Reason.IMAGE_BLURRED: quality.red_cell_radius > 0 and quality.blur > MAX_BLUR_TO_RED_CELL * quality.red_cell_radius,
        Reason.IMAGE_OVEREXPOSED: quality.overexposed > MAX_OVEREXPOSED,
        Reason.IMAGE_UNDEREXPOSED: quality.underexposed > MAX_UNDEREXPOSED,
        Reason.CELLS_CROWDED: quality.covered > MAX_COVERED,
        Reason.IMAGE_OBSTRUCTED: quality.ink > MAX_INK,
    }
    return tuple(reason for reason, holds in found.items() if holds)
