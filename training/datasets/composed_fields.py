"""Fields composed of the single cells of one patient, with the centre of every cell known. They train where no fields are published.

Background, blasts and normal cells all come from ``aml_cells`` crops of the same patient, and cells of both kinds are pasted in exactly
the same way, so that neither the source nor a seam tells the label.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.common.errors import DomainError
from services.common.image_codec import decode_image
from services.patching import stain
from services.patching.cells import LocatedCell, central_cell, locate_cells
from services.patching.grid import OVERLAP, Patch, lay_grid
from services.patching.grid import SIDE as PATCH_SIDE
from services.patching.light import background_light
from training.datasets.dataset import Dataset, LabelledImage, Subset
from training.datasets.quilting import paste, quilt
from training.errors import DatasetError

Bytes = NDArray[np.uint8]
Mask = NDArray[np.bool_]

COMPOSED_FIELDS: Final = "composed_fields"
RED_CELL_RADIUS: Final = 34.7
"""Median radius in px of the red cells of ``aml_cells`` crops of training patients, where ``locate_cells`` sees them: the scale at which
a patch has ``PATCH_SIDE`` px. ``dl4all study red-cells`` measures it."""
PATCHES_PER_AXIS: Final = 3
MIN_BLOCKS: Final = 12
"""Cell-free blocks that a patient must have for a background."""
_BLOCK_SIDES: Final = (96, 80, 64)
_MAX_BLOCKS: Final = 160
_MAX_CELLS: Final = 64
_CORE_MARGIN: Final = 6
_REACH: Final = 22
_CLEARANCE: Final = 10
_BLUISH: Final = 0.06
_MAX_BLUISH_BORDER: Final = 6
_MAX_GAIN: Final = 1.12
_COUNTS: Final = (0, 0, 1, 2, 3, 4, 6)
"""How many blasts a field has, and how many other cells, drawn independently with equal chances; at most as many as the patient has."""
_TRIES: Final = 40


@dataclass(frozen=True)
class CutCell:
    """A cell cut out of its crop with its surroundings.

    Attributes:
        pixels: uint8 (h, w, 3).
        core: bool (h, w), the cell and a margin; what must be pasted.
        center_x, center_y: centre of the cell in px of ``pixels``.
        radius: of the cell in px.
        is_blast: its label.
    """

    pixels: Bytes
    core: Mask
    center_x: float
    center_y: float
    radius: float
    is_blast: bool


@dataclass(frozen=True)
class Parts:
    """What the fields of one patient are made of: cells, and cell-free blocks, uint8 (B, side, side, 3), in all eight orientations."""

    cells: tuple[CutCell, ...]
    blocks: Bytes


@dataclass(frozen=True)
class ComposedCell:
    """A cell of a composed field: centre and radius in px of the field, and its label."""

    x: float
    y: float
    radius: float
    is_blast: bool


@dataclass(frozen=True)
class ComposedField:
    """A field made of cells of one patient.

    Attributes:
        key: unique within the data set.
        patient, subset: of all its pixels.
        pixels: uint8 (H, W, 3).
        scale: size of a patch in it relative to ``PATCH_SIDE``.
        cells: all nucleated cells.
    """

    key: str
    patient: str
    subset: Subset
    pixels: Bytes
    scale: float
    cells: tuple[ComposedCell, ...]

    @property
    def patches(self) -> tuple[Patch, ...]:
        """The published grid at the scale of the field."""
        side = round(PATCH_SIDE * self.scale)
        return lay_grid(self.pixels.shape[1], self.pixels.shape[0], side, OVERLAP)

    def labels(self, patch: Patch) -> tuple[bool, bool]:
        """Whether a patch shows a blast, and whether it shows another nucleated cell, by the published rule."""
        inside = [c.is_blast for c in self.cells if patch.holds((c.x, c.y))]
        return any(inside), not all(inside)


def by_patient(dataset: Dataset, *subsets: Subset) -> dict[str, tuple[LabelledImage, ...]]:
    """Crops by patient, of these subsets, ambiguous ones left out."""
    found: dict[str, list[LabelledImage]] = defaultdict(list)
    for image in dataset.images:
        if image.subset in subsets and image.is_blast is not None:
            found[image.group].append(image)
    return {patient: tuple(images) for patient, images in sorted(found.items())}


def compose_patient(images: Sequence[LabelledImage], count: int, scales: tuple[float, float], seed: int) -> tuple[ComposedField, ...]:
    """Make the fields of one patient.

    Args:
        images: crops of one patient, all blast or normal.
        count: number of fields.
        scales: smallest and largest scale, drawn evenly in its logarithm.
        seed: with the patient's name it decides everything.

    Returns:
        The fields; none if the patient's crops do not give a background or a cell.

    Raises:
        DatasetError: an image cannot be read, or several patients are mixed.
    """
    if len({(i.group, i.subset) for i in images}) != 1:
        raise DatasetError("A composed field is made of the cells of one patient.")
    patient, subset = images[0].group, images[0].subset
    generator = np.random.default_rng([seed, *patient.encode()])
    parts = cut_parts(images, generator)
    if len(parts.blocks) < 8 * MIN_BLOCKS or not parts.cells:
        return ()
    fields = []
    for number in range(count):
        scale = float(np.exp(generator.uniform(*np.log(scales))))
        pixels, cells = compose(parts, scale, generator)
        fields.append(ComposedField(f"{patient}_field_{number:03d}", patient, subset, pixels, scale, cells))
    return tuple(fields)


def compose(parts: Parts, scale: float, generator: np.random.Generator) -> tuple[Bytes, tuple[ComposedCell, ...]]:
    """Compose one field.

    Args:
        parts: of one patient.
        scale: size of a patch relative to ``PATCH_SIDE``.
        generator: draws everything.

    Returns:
        uint8 (side, side, 3), just large enough for ``PATCHES_PER_AXIS`` patches per axis, and its cells.
    """
    patch = round(PATCH_SIDE * scale)
    side = patch + (PATCHES_PER_AXIS - 1) * round(patch * (1.0 - OVERLAP))
    canvas = quilt(parts.blocks, side, side, parts.blocks.shape[1] // 3, generator)
    pasted: list[ComposedCell] = []
    for cell in _drawn_cells(parts.cells, generator):
        turned = turn(cell, int(generator.integers(8)))
        for _ in range(_TRIES):
            x, y = generator.uniform(0, side - 1, 2)
            if all(np.hypot(x - p.x, y - p.y) > turned.radius + p.radius + 4 for p in pasted):
                left, top = round(x - turned.center_x), round(y - turned.center_y)
                paste(canvas, turned.pixels, turned.core, left, top, _REACH)
                pasted.append(ComposedCell(left + turned.center_x, top + turned.center_y, turned.radius, turned.is_blast))
                break
    return canvas, tuple(pasted)


def cut_parts(images: Iterable[LabelledImage], generator: np.random.Generator) -> Parts:
    """Cut cells and cell-free blocks out of the crops of one patient, brought to one background light.

    Crops in which another cell than one in the middle is located give nothing: the label of the other is not known.
    """
    crops, located = _usable(images, generator)
    if not crops:
        return Parts((), np.zeros((0, _BLOCK_SIDES[-1], _BLOCK_SIDES[-1], 3), np.uint8))
    lights = np.array([background_light(rgb)[0, 0] for rgb, _ in crops])
    gains = np.clip(np.median(lights, axis=0) / lights, 1 / _MAX_GAIN, _MAX_GAIN)
    evened = [np.rint(np.clip(rgb * gain, 0, 255)).astype(np.uint8) for (rgb, _), gain in zip(crops, gains, strict=True)]
    cells = tuple(c for rgb, (_, blast), cell in zip(evened, crops, located, strict=True) if (c := cut_cell(rgb, cell, blast)) is not None)
    return Parts(cells, _blocks(evened, located, generator))


def cut_cell(rgb: Bytes, cell: LocatedCell, is_blast: bool) -> CutCell | None:
    """Cut a located cell out with its surroundings; None where the cell or its margin touches the border of the image."""
    assert cell.mask is not None
    whole = _whole_mask(cell, rgb.shape)
    core = cv2.dilate(whole.astype(np.uint8), stain.disk(_CORE_MARGIN)) > 0
    if core[[0, -1]].any() or core[:, [0, -1]].any():
        return None
    return CutCell(rgb, core, cell.center_x, cell.center_y, cell.radius, is_blast)


def turn(cell: CutCell, position: int) -> CutCell:
    """One of the eight orientations (quarter turns, mirrored or not) of a cell; no pixel is interpolated."""
    pixels, core, x, y = cell.pixels, cell.core, cell.center_x, cell.center_y
    if position >= 4:
        pixels, core, x = pixels[:, ::-1], core[:, ::-1], pixels.shape[1] - 1 - x
    for _ in range(position % 4):
        pixels, core, x, y = np.rot90(pixels), np.rot90(core), y, pixels.shape[1] - 1 - x
    return CutCell(np.ascontiguousarray(pixels), np.ascontiguousarray(core), x, y, cell.radius, cell.is_blast)


def _drawn_cells(cells: Sequence[CutCell], generator: np.random.Generator) -> list[CutCell]:
    drawn: list[CutCell] = []
    for kind in (True, False):
        of_kind = [c for c in cells if c.is_blast is kind]
        count = min(int(generator.choice(_COUNTS)), len(of_kind))
        drawn += [of_kind[i] for i in generator.permutation(len(of_kind))[:count]]
    return [drawn[i] for i in generator.permutation(len(drawn))]


def _usable(images: Iterable[LabelledImage], generator: np.random.Generator) -> tuple[list[tuple[Bytes, bool]], list[LocatedCell]]:
    """Crops with their label in which the central cell is the only one, and that cell; at most ``_MAX_CELLS`` of each label."""
    every = list(images)
    taken = {True: 0, False: 0}
    crops, located = [], []
    for i in generator.permutation(len(every)):
        blast = every[i].is_blast == 1
        if taken[blast] >= _MAX_CELLS:
            continue
        try:
            rgb = decode_image(every[i].path.read_bytes()).pixels
        except (DomainError, OSError) as error:
            raise DatasetError(f"{every[i].path}: {error}") from error
        cells = locate_cells(rgb).cells
        cell = central_cell(cells, *rgb.shape[:2])
        if cell is None or len(cells) > 1 or abs(cell.center_x / rgb.shape[1] - 0.5) > 0.2 or abs(cell.center_y / rgb.shape[0] - 0.5) > 0.2:
            continue
        taken[blast] += 1
        crops.append((rgb, blast))
        located.append(cell)
    return crops, located


def _blocks(crops: Sequence[Bytes], located: Sequence[LocatedCell], generator: np.random.Generator) -> Bytes:
    """Cell-free squares in all eight orientations. The side is the largest with enough squares."""
    for side in _BLOCK_SIDES:
        found = [b for rgb, cell in zip(crops, located, strict=True) for b in _free_squares(rgb, cell, side)]
        if len(found) >= 4 * MIN_BLOCKS or side == _BLOCK_SIDES[-1]:
            break
    if not found:
        return np.zeros((0, side, side, 3), np.uint8)
    chosen = np.stack([found[i] for i in generator.permutation(len(found))[:_MAX_BLOCKS]])
    turned = [np.rot90(b, k, (1, 2)) for b in (chosen, chosen[:, :, ::-1]) for k in range(4)]
    return np.concatenate(turned)


def _free_squares(rgb: Bytes, cell: LocatedCell, side: int) -> list[Bytes]:
    """Squares along the border of a crop that do not show its cell."""
    taken = cv2.dilate(_whole_mask(cell, rgb.shape).astype(np.uint8), stain.disk(_CLEARANCE))
    height, width = taken.shape
    last_y, last_x = height - side, width - side
    corners = {(x, y) for x in (0, last_x // 2, last_x) for y in (0, last_y // 2, last_y)}
    squares = [np.s_[y : y + side, x : x + side] for x, y in sorted(corners)]
    bluish = _bluish(rgb)
    return [rgb[s] for s in squares if not taken[s].any() and _on_border(bluish[s]) <= _MAX_BLUISH_BORDER]


def _bluish(rgb: Bytes) -> Mask:
    """What absorbs more red than blue light: nuclei, cytoplasm, platelets, but not red cells."""
    density = stain.optical_density(rgb, background_light(rgb))
    mask = (density[..., 0] - density[..., 2] > _BLUISH) & (density.sum(axis=2) > stain.ABSORBS)
    return np.asarray(cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, stain.disk(1)) > 0)


def _on_border(mask: Mask) -> int:
    """Marked pixels along the border of a square. A platelet lies inside the square; the border cuts the rest of a cell."""
    return int(mask[[0, -1]].sum() + mask[:, [0, -1]].sum())


def _whole_mask(cell: LocatedCell, shape: tuple[int, ...]) -> Mask:
    mask = np.zeros(shape[:2], np.bool_)
    mask[cell.y : cell.y + cell.height, cell.x : cell.x + cell.width] = cell.mask
    return mask
