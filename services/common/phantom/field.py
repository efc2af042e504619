"""Drawn blood-smear phantoms with known truth.

A phantom is a seeded drawing of a May-Grünwald-Giemsa stained peripheral blood smear: white cells of
known kind, position and size among red cells and platelets. Absorption is added up in optical density and
turned into light by Beer-Lambert, ``image = light * exp(-sum OD)``, then blurred, given sensor noise and
stored with 8 bits per channel. Nothing in it was taken from a patient.

Coordinates are pixels, x to the right and y down, with pixel centres at whole numbers. The same seed and
options always give the same image. Blur, noise, stain, light and caption never move a cell.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from services.common.phantom.caption import draw_caption, strip_height
from services.common.phantom.layout import LaidOut, Occupancy, lay_out_central, lay_out_whites, no_room
from services.common.phantom.light import expose
from services.common.phantom.options import DEFAULT_CROP, DEFAULT_FIELD, CellKind, PhantomOptions
from services.common.phantom.platelets import draw_platelets
from services.common.phantom.red_cells import draw_red_cells
from services.common.phantom.scene import Scene
from services.common.phantom.seeds import Purpose, check_seed, stream
from services.common.phantom.truth import Phantom, PhantomCell
from services.common.phantom.white_cells import draw_white_cell, nominal_radius


def smear_field(seed: int, options: PhantomOptions = DEFAULT_FIELD) -> Phantom:
    """Draw a field of a blood smear.

    All white cells lie fully inside the image and share no pixel.

    Args:
        seed: Seed of the drawing, 0 or greater.
        options: Content and imaging.

    Returns:
        The image of ``options.height`` x ``options.width`` pixels with its truth.

    Raises:
        ValueError: If the seed is negative or the white cells do not fit into the image.
    """
    check_seed(seed)
    rng = stream(seed, Purpose.CELLS)
    kinds = _deal_kinds(options, rng)
    radii = [nominal_radius(kind, options.cell_radius, rng) for kind in kinds]
    if math.pi * sum(radius**2 for radius in radii) > options.width * (options.height - strip_height(options)):
        raise ValueError(no_room(options))
    cells = [draw_white_cell(kind, radius, rng) for kind, radius in zip(kinds, radii, strict=True)]
    return _render(seed, options, lay_out_whites(cells, options, stream(seed, Purpose.LAYOUT)))


def single_cell(
    seed: int,
    kind: CellKind,
    side: int = 264,
    cell_radius: float = 42.0,
    options: PhantomOptions = DEFAULT_CROP,
) -> Phantom:
    """Draw a square crop with one white cell near its centre.

    Args:
        seed: Seed of the drawing, 0 or greater.
        kind: Kind of the white cell.
        side: Width and height of the crop, pixels, 64..8192.
        cell_radius: Median radius of a lymphocyte, pixels, 6..400; the other kinds scale with it.
        options: Surroundings and imaging; its width, height, cells, kinds and cell_radius are replaced.

    Returns:
        The crop of ``side`` x ``side`` pixels with its truth; its options are those really used.

    Raises:
        ValueError: If the seed is negative, a value is out of range or the cell does not fit into the crop.
    """
    check_seed(seed)
    used = dataclasses.replace(options, width=side, height=side, cells=1, kinds=(kind,), cell_radius=cell_radius)
    rng = stream(seed, Purpose.CELLS)
    cell = draw_white_cell(kind, nominal_radius(kind, cell_radius, rng), rng)
    return _render(seed, used, [lay_out_central(cell, used, stream(seed, Purpose.LAYOUT))])


def _deal_kinds(options: PhantomOptions, rng: np.random.Generator) -> list[CellKind]:
    start = int(rng.integers(len(options.kinds)))
    dealt = [options.kinds[(start + i) % len(options.kinds)] for i in range(options.cells)]
    return [dealt[i] for i in rng.permutation(options.cells)]


def _draw_scene(seed: int, options: PhantomOptions, whites: list[LaidOut]) -> Scene:
    scene = Scene(
        np.zeros((options.height, options.width, 3), dtype=np.float32),
        Occupancy(options.width, options.height),
        Occupancy(options.width, options.height),
    )
    for item in whites:
        scene.add(item.cell, item.left, item.top)
        free_ring = 1 if item.touched else max(2, round(0.12 * options.cell_radius))
        scene.guard.stamp(item.cell.solid, item.left, item.top, free_ring)
    if options.red_cell_density > 0:
        draw_red_cells(scene, whites, options, stream(seed, Purpose.RED_CELLS))
    draw_platelets(scene, options, stream(seed, Purpose.PLATELETS))
    return scene


def _render(seed: int, options: PhantomOptions, whites: list[LaidOut]) -> Phantom:
    scene = _draw_scene(seed, options, whites)
    image = expose(seed, options, scene.density)
    if options.label:
        draw_caption(image, seed)
    mask = np.zeros((options.height, options.width), dtype=np.uint16)
    cells = tuple(_measure(item, mask, number) for number, item in enumerate(whites, start=1))
    image.setflags(write=False)
    mask.setflags(write=False)
    return Phantom(image, cells, mask, seed, options)


def _measure(item: LaidOut, mask: NDArray[np.uint16], number: int) -> PhantomCell:
    rows, columns = np.nonzero(item.cell.solid)
    mask[rows + item.top, columns + item.left] = number
    assert item.cell.kind is not None
    return PhantomCell(
        center_x=float(columns.mean() + item.left),
        center_y=float(rows.mean() + item.top),
        radius=math.sqrt(rows.size / math.pi),
        kind=item.cell.kind,
        nucleus_radius=math.sqrt(np.count_nonzero(item.cell.nucleus) / math.pi),
    )
