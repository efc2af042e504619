"""How well cells are found in drawn fields: one change of the drawing at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from services.common.phantom import CellKind, Phantom, PhantomOptions, smear_field
from services.patching.cells import LocatedCell

Bytes = NDArray[np.uint8]
Locate = Callable[[Bytes], Sequence[LocatedCell]]
"""From an image to its cells with their masks."""
Counts = list[int]
"""Cells that were hit, that were located and that are drawn."""

FIELD: Final = PhantomOptions(width=1024, height=768, cells=10, cell_radius=32.0)
SWEEP: Final[Mapping[str, PhantomOptions]] = {
    "as drawn": FIELD,
    "blur, sigma 2 px": replace(FIELD, blur_sigma=2.0),
    "blur, sigma 4 px": replace(FIELD, blur_sigma=4.0),
    "blur, sigma 7 px": replace(FIELD, blur_sigma=7.0),
    "stain 0.6": replace(FIELD, stain=0.6),
    "stain 1.5": replace(FIELD, stain=1.5),
    "stain pink": replace(FIELD, stain_hue=-1.0),
    "stain blue": replace(FIELD, stain_hue=1.0),
    "light even": replace(FIELD, light=0.0),
    "light uneven, 0.3": replace(FIELD, light=0.3),
    "light uneven, 0.5": replace(FIELD, light=0.5),
    "brightness 0.7": replace(FIELD, brightness=0.7),
    "brightness 1.2, saturated": replace(FIELD, brightness=1.2),
    "noise, 10 levels": replace(FIELD, noise=10.0),
    "noise, 25 levels": replace(FIELD, noise=25.0),
    "no red cells": replace(FIELD, red_cell_density=0.0),
    "few red cells": replace(FIELD, red_cell_density=0.1),
    "crowded red cells": replace(FIELD, red_cell_density=0.65),
    "all white cells touched": replace(FIELD, touching=1.0),
    "many white cells": replace(FIELD, cells=40, cell_radius=26.0),
    "100 platelets": replace(FIELD, platelets=100),
    "small cells": replace(FIELD, cell_radius=12.0),
    "large cells": replace(FIELD, cells=5, cell_radius=60.0),
    "weak stain, uneven light, blur, noise": replace(FIELD, stain=0.7, light=0.4, blur_sigma=2.5, noise=8.0),
    "blue stain, uneven light, dark, touched": replace(FIELD, stain=0.8, stain_hue=0.6, light=0.5, blur_sigma=2.0, brightness=0.8, touching=0.6),
}
BLASTS: Final = replace(FIELD, kinds=(CellKind.BLAST,), cells=8, label=False)
_PAIR: Final = 1.85
"""Distance of the centres of cells that touch, in radii."""
_MARGIN: Final = 0.1


@dataclass(frozen=True, eq=False)
class DrawnField:
    """A drawn field and what is true of it: int32 (H, W), 1 + the number of the cell that a px is of, and the number of cells."""

    image: Bytes
    owners: NDArray[np.int32]
    count: int

    @classmethod
    def of(cls, phantom: Phantom) -> DrawnField:
        """The field of a phantom."""
        return cls(phantom.image, phantom.mask.astype(np.int32), len(phantom.cells))


def framed(field: DrawnField, level: int) -> DrawnField:
    """With a margin in one grey on all sides, a tenth of the width."""
    side = round(_MARGIN * field.image.shape[1])
    border = (side, side, side, side, cv2.BORDER_CONSTANT)
    image = cv2.copyMakeBorder(field.image, *border, value=(level,) * 3)
    return DrawnField(np.asarray(image, np.uint8), np.asarray(cv2.copyMakeBorder(field.owners, *border, value=0), np.int32), field.count)


def vignetted(field: DrawnField) -> DrawnField:
    """Darker towards the corners, where 40 % of the light is left."""
    height, width = field.owners.shape
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    light = 1 - 0.3 * (rows**2 + columns**2)
    return replace(field, image=np.asarray((field.image * light[..., None]).round(), np.uint8))


def dimmed(field: DrawnField) -> DrawnField:
    """At 40 % of the light."""
    return replace(field, image=np.asarray((field.image * 0.4).round(), np.uint8))


def paired(field: DrawnField) -> DrawnField:
    """With a copy of every cell against it and partly under it, turned by half a circle, wherever no other white cell lies."""
    image, owners, count = field.image.copy(), field.owners.copy(), field.count
    for number in range(1, field.count + 1):
        copy = _turned_beside(field, number)
        if copy is None or not np.isin(owners[copy.rows, copy.columns], (0, number)).all():
            continue
        free = owners[copy.rows, copy.columns] == 0
        count += 1
        image[copy.rows[free], copy.columns[free]] = copy.pixels[free]
        owners[copy.rows[free], copy.columns[free]] = count
    return DrawnField(image, owners, count)


@dataclass(frozen=True, eq=False)
class _Copy:
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    pixels: Bytes


def _turned_beside(field: DrawnField, number: int) -> _Copy | None:
    """Where the pixels of a cell come to lie to its right, turned by half a circle; None beyond the border."""
    rows, columns = np.nonzero(field.owners == number)
    if not rows.size:
        return None
    shift = round(_PAIR * np.sqrt(rows.size / np.pi))
    turned = 2 * round(rows.mean()) - rows, 2 * round(columns.mean()) - columns + shift
    height, width = field.owners.shape
    if turned[0].min() < 0 or turned[0].max() >= height or turned[1].min() < 0 or turned[1].max() >= width:
        return None
    return _Copy(*turned, field.image[rows, columns])


def drawn_fields(count: int) -> Iterator[tuple[str, list[DrawnField]]]:
    """Every change by its name, with ``count`` fields each."""
    for name, options in SWEEP.items():
        yield name, [DrawnField.of(smear_field(1000 + seed, options)) for seed in range(count)]
    plain = [DrawnField.of(smear_field(2000 + seed, replace(FIELD, label=False))) for seed in range(count)]
    blasts = [DrawnField.of(smear_field(3000 + seed, BLASTS)) for seed in range(count)]
    yield "margin, white", [framed(f, 255) for f in plain]
    yield "margin, black", [framed(f, 0) for f in plain]
    yield "vignette", [vignetted(f) for f in plain]
    yield "dim light, 0.4", [dimmed(f) for f in plain]
    yield "white cells that touch in pairs", [paired(f) for f in blasts]


def sweep(locate: Locate, count: int = 6) -> dict[str, Counts]:
    """Counts by the names of the changes."""
    total = len(SWEEP) + 5
    return {
        name: np.sum([count_hits(locate(f.image), f) for f in fields], axis=0).tolist()
        for name, fields in track(drawn_fields(count), "drawn fields", total=total)
    }


def count_hits(cells: Sequence[LocatedCell], field: DrawnField) -> Counts:
    """A hit is a centre on the drawn mask of a cell that no other has hit."""
    hit = {int(field.owners[round(c.center_y), round(c.center_x)]) for c in cells} - {0}
    return [len(hit), len(cells), field.count]


def pooled(counts: Mapping[str, Counts]) -> Counts:
    """Sums over all changes."""
    return [int(n) for n in np.sum(list(counts.values()), axis=0)]


def shares(counts: Counts) -> tuple[str, str]:
    """Recall and precision as text."""
    hits, located, drawn = counts
    return f"{hits / drawn:.3f} ({hits}/{drawn})", f"{hits / max(1, located):.3f} ({hits}/{located})"
