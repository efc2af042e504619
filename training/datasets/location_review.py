"""What a person saw where a located cell has no box of its own in bccd_fields or chula_fields.

Positions are px of the original images. Only what shows a nucleated cell that the annotation leaves out counts as such; doubtful
things (smudged nuclei, stain at the border) do not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from services.patching.cells import LocatedCell


class Verdict(StrEnum):
    """Why a located cell has no box of its own."""

    UNANNOTATED = "a nucleated cell that the annotation leaves out"
    TWICE = "one large cell found twice: lobes farther apart than two red-cell radii"
    SMUDGE = "a smudged nucleus"
    DEBRIS = "stain at the border"
    PLATELET = "a platelet"
    UNKNOWN = "not looked at"


REACH: Final = 60.0
"""A verdict holds for a located cell within so many px."""
REVIEWED: Final[Mapping[str, tuple[tuple[float, float, Verdict], ...]]] = {
    "B-59_0179": ((715, 578, Verdict.UNANNOTATED),),
    "B-59_0180": ((1356, 573, Verdict.UNANNOTATED),),
    "E-13_0077": ((1153, 671, Verdict.UNANNOTATED),),
    "E-4B_0501": ((1178, 69, Verdict.UNANNOTATED), (1239, 68, Verdict.TWICE), (1211, 137, Verdict.TWICE)),
    "N-3B_0043": ((59, 460, Verdict.UNANNOTATED),),
    "BloodImage_00003": ((295, 172, Verdict.TWICE),),
    "BloodImage_00005": ((357, 442, Verdict.TWICE),),
    "BloodImage_00010": ((384, 350, Verdict.TWICE), (461, 355, Verdict.TWICE), (385, 330, Verdict.TWICE)),
    "BloodImage_00040": ((28, 458, Verdict.UNANNOTATED),),
    "BloodImage_00041": ((622, 31, Verdict.UNANNOTATED),),
    "BloodImage_00094": ((361, 281, Verdict.TWICE),),
    "BloodImage_00095": ((335, 45, Verdict.TWICE), (380, 121, Verdict.TWICE), (347, 158, Verdict.TWICE)),
    "BloodImage_00103": ((622, 448, Verdict.UNANNOTATED),),
    "BloodImage_00110": ((303, 31, Verdict.DEBRIS),),
    "BloodImage_00133": ((224, 37, Verdict.UNANNOTATED),),
    "BloodImage_00134": ((29, 112, Verdict.DEBRIS), (621, 286, Verdict.PLATELET)),
    "BloodImage_00135": ((117, 413, Verdict.UNANNOTATED),),
    "BloodImage_00171": ((260, 90, Verdict.SMUDGE), (355, 251, Verdict.SMUDGE)),
    "BloodImage_00178": ((293, 68, Verdict.UNANNOTATED),),
    "BloodImage_00228": ((350, 70, Verdict.UNANNOTATED),),
    "BloodImage_00240": ((439, 97, Verdict.TWICE),),
    "BloodImage_00242": ((232, 20, Verdict.UNANNOTATED),),
    "BloodImage_00249": ((226, 126, Verdict.TWICE),),
    "BloodImage_00251": ((449, 327, Verdict.TWICE),),
    "BloodImage_00253": ((338, 450, Verdict.TWICE),),
    "BloodImage_00268": (
        (235, 77, Verdict.TWICE),
        (277, 113, Verdict.TWICE),
    ),
    "BloodImage_00269": ((209, 130, Verdict.TWICE),),
    "BloodImage_00273": ((97, 385, Verdict.SMUDGE),),
    "BloodImage_00281": ((50, 455, Verdict.PLATELET),),
    "BloodImage_00290": ((117, 461, Verdict.SMUDGE),),
    "BloodImage_00309": ((302, 78, Verdict.TWICE),),
    "BloodImage_00327": ((55, 274, Verdict.UNANNOTATED),),
    "BloodImage_00344": ((258, 306, Verdict.TWICE),),
    "BloodImage_00346": ((268, 445, Verdict.TWICE),),
    "BloodImage_00348": ((251, 130, Verdict.TWICE),),
    "BloodImage_00350": ((301, 434, Verdict.TWICE),),
    "BloodImage_00352": ((442, 373, Verdict.TWICE),),
    "BloodImage_00353": ((425, 342, Verdict.TWICE),),
    "BloodImage_00359": ((152, 347, Verdict.TWICE),),
    "BloodImage_00382": ((551, 189, Verdict.PLATELET),),
    "BloodImage_00383": ((327, 425, Verdict.TWICE),),
}
"""All cells that the stain located on 2026-11-25, and locators on 2026-11-30, without a box of their own, looked at on that day."""


def verdict(field: str, cell: LocatedCell) -> Verdict:
    """What was seen at a position of a field, by the stem of its file name."""
    near = [(math.hypot(cell.center_x - x, cell.center_y - y), v) for x, y, v in REVIEWED.get(field, ())]
    distance, seen = min(near, key=lambda n: n[0], default=(math.inf, Verdict.UNKNOWN))
    return seen if distance <= REACH else Verdict.UNKNOWN
