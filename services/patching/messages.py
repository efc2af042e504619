"""Located cells, their crops, and patches as messages of the contract, and back."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dl4all.imaging.v1 import imaging_pb2
from dl4all.patching.v1 import patching_pb2
from services.common.checks import MAX_CELLS_PER_CALL
from services.common.errors import InvalidRequestError
from services.common.maps import read_feature_map
from services.patching.cells import LocatedCell
from services.patching.crops import MAX_BATCH_BYTES, CutCrop
from services.patching.grid import Patch
from services.patching.patches import MAX_PATCHES, PatchActivation

_LABELS: Final = 2
_MAX_PLACES: Final = 64
_MAX_ALL_PLACES: Final = 1 << 18
"""Places of all patches: 128 for each, where networks have 16 to 64."""


@dataclass(frozen=True)
class Activations:
    """Class activations of a network of patches on a field, and the limits by which their peaks are cells."""

    patches: tuple[PatchActivation, ...]
    min_activation: float
    suppression_radius: float


def cell_message(number: int, cell: LocatedCell) -> imaging_pb2.Cell:
    """A cell under its number."""
    box = imaging_pb2.Box(x=cell.x, y=cell.y, width=cell.width, height=cell.height)
    return imaging_pb2.Cell(cell_id=number, box=box, center_x=cell.center_x, center_y=cell.center_y, radius=cell.radius, confidence=cell.confidence)


def crop_message(number: int, cell: LocatedCell, crop: CutCrop, microns_per_pixel: float) -> imaging_pb2.Crop:
    """The pixels around a cell; cell and crop in pixels of one image."""
    height, width = crop.pixels.shape[:2]
    shift = (crop.reduction - 1) / 2
    return imaging_pb2.Crop(
        pixels=crop.pixels.tobytes(),
        height=height,
        width=width,
        origin_x=crop.origin_x,
        origin_y=crop.origin_y,
        center_x=(cell.center_x - crop.origin_x - shift) / crop.reduction,
        center_y=(cell.center_y - crop.origin_y - shift) / crop.reduction,
        radius_estimate=cell.radius / crop.reduction,
        microns_per_pixel=microns_per_pixel * crop.reduction,
        cell_id=number,
        reduction=crop.reduction,
    )


def read_activations(message: patching_pb2.PatchActivations) -> Activations:
    """The class activations of a network of patches, checked.

    Raises:
        InvalidRequestError: ACTIVATIONS_INVALID, MAP_WRONG_SIZE or NOT_FINITE.
    """
    bounds = (message.min_activation, message.suppression_radius)
    if not all(map(math.isfinite, bounds)) or message.suppression_radius <= 0:
        raise _invalid("min_activation must be a number, and suppression_radius above 0")
    if any(p.side < 1 or max(p.activations.height, p.activations.width) > _MAX_PLACES for p in message.patches):
        raise _invalid(f"patches need a side, and at most {_MAX_PLACES} rows and columns of places")
    if len(message.patches) > MAX_PATCHES or sum(p.activations.height * p.activations.width for p in message.patches) > _MAX_ALL_PLACES:
        raise _invalid(f"there are at most {MAX_PATCHES} patches, of {_MAX_ALL_PLACES} places in all")
    patches = tuple(
        PatchActivation(Patch(number, p.x, p.y, p.side), read_feature_map(p.activations, _LABELS, "activations"))
        for number, p in enumerate(message.patches)
    )
    return Activations(patches, *bounds)


def check_grid(request: patching_pb2.CutPatchesRequest) -> None:
    """Refuse a grid that makes no sense.

    Raises:
        InvalidRequestError: GRID_INVALID.
    """
    sound = 32 <= request.patch_side <= 4096 and 32 <= request.side <= 1024 and 0.0 <= request.overlap <= 0.75
    if not sound or not math.isfinite(request.nominal_red_cell_radius) or request.nominal_red_cell_radius <= 0:
        raise InvalidRequestError("GRID_INVALID", "Patches have a side of 32..4096 px, overlap by 0..0.75 and are brought to 32..1024 px.")


def patches_of_message(side: int) -> int:
    """How many patches of a side in px a message holds: as many as are classified at once, in at most about ``MAX_BATCH_BYTES``."""
    return max(1, min(MAX_CELLS_PER_CALL, MAX_BATCH_BYTES // (3 * side**2)))


def patch_message(
    kind: imaging_pb2.ImageKind.ValueType, first: int, patches: Iterable[tuple[Patch, NDArray[np.uint8]]]
) -> patching_pb2.CutPatchesResponse:
    """Some patches.

    Args:
        kind: what the image was taken for.
        first: number of the first of them.
        patches: with their pixels, uint8 (side, side, 3).
    """
    message = patching_pb2.CutPatchesResponse(kind=kind)
    for number, (patch, pixels) in enumerate(patches, start=first):
        message.patches.add(patch_id=number, x=patch.x, y=patch.y, side=patch.side, pixels=pixels.tobytes())
    return message


def _invalid(what: str) -> InvalidRequestError:
    return InvalidRequestError("ACTIVATIONS_INVALID", f"In activations, {what}.", field="activations")
