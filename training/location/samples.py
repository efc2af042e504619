"""What the locator learns from one image: its pixels as the locator sees them, larger than it works, with a label for every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.patching import stain, working_image
from services.patching.cells import WORKING_SIDE
from services.patching.light import background_light
from services.patching.locator_maps import Kind
from services.patching.reduction import reduced
from services.patching.stained import StainedImage
from training.datasets.fields import TruthBox
from training.location.annotated import Annotated, Mark
from training.location.teacher import Taught, teach

Bytes = NDArray[np.uint8]
Mask = NDArray[np.bool_]
RED_CELL_RADIUS: Final = 12.0
"""Radius of a red cell in px of a sample: the locator works at less, so that a sample is only ever made smaller."""
LARGEST_UNMARKED: Final = 0.4
"""Area of the largest violet mass without a mark in a crop, in areas of a red cell; crops with a larger one are left out."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One image at ``RED_CELL_RADIUS``.

    Attributes:
        key, source, fold: of the image.
        pixels: uint8 (h, w, 3), light evened out.
        owners: int16 (h, w), 1 + index of the mark whose cell a px belongs to; 0 for none.
        nuclei: bool (h, w).
        unsure: bool (h, w), pixels of which nobody knows whether they are of a cell.
        x, y: float32 (M,), position of every mark.
        kinds: int8 (M,), of every mark.
        is_known: bool (M,), whether its cell has a mask.
        platelets_are_marked: see ``Annotated``.
        nuclei_are_known: whether the nuclei of known cells are.
    """

    key: str
    source: str
    fold: int
    pixels: Bytes
    owners: NDArray[np.int16]
    nuclei: Mask
    unsure: Mask
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    kinds: NDArray[np.int8]
    is_known: Mask
    platelets_are_marked: bool
    nuclei_are_known: bool


def make_sample(image: Annotated) -> Sample | None:
    """Make the sample of an image; None where the scale is not seen, or where a crop shows an unmarked neighbour."""
    factor = max(1, -(-max(image.pixels.shape[:2]) // WORKING_SIDE))
    small = reduced(image.pixels, factor)
    stained = StainedImage.of(small, None, is_field=not image.is_crop)
    unit = stained.unit if image.red_cell_radius is None else image.red_cell_radius / factor
    if unit is None:
        return None
    taught = _exact(image.marks, factor, small.shape) or teach(stained, [_scaled(m, 1.0 / factor) for m in image.marks], unit)
    if image.is_crop and _shows_another(stained, taught, unit):
        return None
    light = background_light(small, is_field=not image.is_crop)
    step = unit * factor / RED_CELL_RADIUS
    height, width = (max(8, round(side / step)) for side in image.pixels.shape[:2])
    pixels = working_image.evened(working_image.resized(image.pixels, height, width), light)
    size = (width, height)
    return Sample(
        image.key,
        image.source,
        image.fold,
        pixels,
        np.asarray(cv2.resize(taught.owners.astype(np.int16), size, interpolation=cv2.INTER_NEAREST_EXACT), np.int16),
        cv2.resize(taught.nuclei.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT) > 0,
        cv2.resize(taught.unsure.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT) > 0,
        np.array([(m.x + 0.5) * width / image.pixels.shape[1] - 0.5 for m in image.marks], np.float32),
        np.array([(m.y + 0.5) * height / image.pixels.shape[0] - 0.5 for m in image.marks], np.float32),
        np.array([m.kind for m in image.marks], np.int8),
        taught.is_known,
        image.platelets_are_marked,
        not any(m.mask is not None and m.nucleus is None for m in image.marks),
    )


def _shows_another(stained: StainedImage, taught: Taught, unit: float) -> bool:
    """Whether a crop shows a violet mass that no mark names: a neighbour, of which nobody says what it is."""
    rest = (stained.violet > stained.threshold) & (taught.owners == 0) & ~taught.nuclei
    rest = cv2.morphologyEx(rest.astype(np.uint8), cv2.MORPH_OPEN, stain.disk(max(1, round(0.2 * unit))))
    areas = cv2.connectedComponentsWithStats(rest)[2][1:, cv2.CC_STAT_AREA]
    return bool(areas.max(initial=0) > LARGEST_UNMARKED * np.pi * unit**2)


def _exact(marks: Sequence[Mark], factor: int, shape: tuple[int, ...]) -> Taught | None:
    """The masks of marks that have them, on the working copy; None where they do not."""
    if not marks or any(m.mask is None for m in marks if m.kind is not Kind.PLATELET):
        return None
    owners = np.zeros(shape[:2], np.int32)
    nuclei = np.zeros(shape[:2], bool)
    for index, mark in enumerate(marks):
        if mark.mask is not None:
            owners[_reduced_mask(mark.mask, factor)] = index + 1
        if mark.nucleus is not None:
            nuclei |= _reduced_mask(mark.nucleus, factor)
    return Taught(owners, nuclei, np.array([m.mask is not None for m in marks], bool), np.zeros(nuclei.shape, bool))


def _reduced_mask(mask: Mask, factor: int) -> Mask:
    height, width = mask.shape[0] // factor, mask.shape[1] // factor
    shares = cv2.resize(mask[: height * factor, : width * factor].astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(shares > 0.5)


def _scaled(mark: Mark, share: float) -> Mark:
    box = mark.box
    if box is not None:
        box = TruthBox(*((v + 0.5) * share - 0.5 for v in (box.left, box.top, box.right, box.bottom)))
    return replace(mark, x=(mark.x + 0.5) * share - 0.5, y=(mark.y + 0.5) * share - 0.5, box=box)
