"""Small drawn images, samples and windows whose cells are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from services.patching.locator_maps import Kind
from services.patching.working_image import BACKGROUND
from training.location.samples import Sample
from training.location.window import Window

Bytes = NDArray[np.uint8]
Mask = NDArray[np.bool_]
CYTOPLASM, NUCLEUS = (180, 184, 210), (100, 60, 140)


@dataclass(frozen=True)
class Disk:
    """A round cell with a round nucleus in its middle, px; where it is not known, nobody drew its outline."""

    x: int
    y: int
    radius: int = 12
    nucleus: int = 8
    kind: Kind = Kind.NUCLEATED
    is_known: bool = True
    color: tuple[int, int, int] = NUCLEUS


def disk(x: float, y: float, radius: float, height: int, width: int) -> Mask:
    rows, columns = np.ogrid[:height, :width]
    return np.asarray((rows - y) ** 2 + (columns - x) ** 2 <= radius**2)


def common_share(a: Mask, b: Mask) -> float:
    """Intersection over union."""
    return float(np.count_nonzero(a & b)) / max(1.0, float(np.count_nonzero(a | b)))


def picture(cells: Sequence[Disk], height: int = 160, width: int = 200, background: int = BACKGROUND) -> Bytes:
    """Violet cells on a bright ground, a little blurred and noisy; nuclei lie over all cytoplasm."""
    drawn = np.full((height, width, 3), background, np.float32)
    for cell in cells:
        cv2.circle(drawn, (cell.x, cell.y), cell.radius, CYTOPLASM, cv2.FILLED, cv2.LINE_AA)
    for cell in cells:
        cv2.circle(drawn, (cell.x, cell.y), cell.nucleus, cell.color, cv2.FILLED, cv2.LINE_AA)
    noise = np.random.default_rng(0).normal(0, 2, drawn.shape)
    return np.clip(cv2.GaussianBlur(drawn, (0, 0), 1.0) + noise, 0, 255).astype(np.uint8)


def sample(cells: Sequence[Disk], height: int = 96, width: int = 128, **facts: Any) -> Sample:
    """A sample whose labels are exactly the disks; around those that are not known all is unsure."""
    owners = np.zeros((height, width), np.int16)
    nuclei, unsure = np.zeros((height, width), bool), np.zeros((height, width), bool)
    for number, cell in enumerate(cells, start=1):
        whole = disk(cell.x, cell.y, cell.radius, height, width)
        if cell.kind is Kind.PLATELET:
            continue
        if cell.is_known:
            owners[whole] = number
            nuclei[disk(cell.x, cell.y, cell.nucleus, height, width)] = True
        else:
            unsure[whole] = True
    values: dict[str, Any] = {
        "key": "drawn",
        "source": "drawn",
        "fold": 0,
        "pixels": picture(cells, height, width),
        "owners": owners,
        "nuclei": nuclei,
        "unsure": unsure,
        "x": np.array([c.x for c in cells], np.float32),
        "y": np.array([c.y for c in cells], np.float32),
        "kinds": np.array([c.kind for c in cells], np.int8),
        "is_known": np.array([c.is_known and c.kind is not Kind.PLATELET for c in cells], bool),
        "platelets_are_marked": True,
        "nuclei_are_known": True,
    }
    return Sample(**{**values, **facts})


def window(cells: Sequence[Disk], side: int = 64, **facts: Any) -> Window:
    """A window with a red cell of 8 px, whose labels are exactly the disks; they may lie partly outside."""
    far = 2 * side
    wide = sample([Disk(c.x + far, c.y + far, c.radius, c.nucleus, c.kind, c.is_known) for c in cells], side + 2 * far, side + 2 * far)
    inside = np.s_[far : far + side, far : far + side]
    values: dict[str, Any] = {
        "pixels": wide.pixels[inside],
        "owners": wide.owners[inside],
        "nuclei": wide.nuclei[inside],
        "unsure": wide.unsure[inside],
        "x": wide.x - far,
        "y": wide.y - far,
        "kinds": wide.kinds,
        "areas": np.bincount(wide.owners.ravel(), minlength=len(cells) + 1)[1:].astype(np.float32),
        "red_cell_radius": 8.0,
        "platelets_are_marked": True,
        "nuclei_are_known": True,
    }
    return Window(**{**values, **facts})
