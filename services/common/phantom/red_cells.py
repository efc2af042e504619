"""Draw red cells, some of which touch white cells."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from services.common.phantom.canvas import DrawnCell, away, canvas_for, outline, trim
from services.common.phantom.layout import LaidOut, Occupancy, beside
from services.common.phantom.options import PhantomOptions
from services.common.phantom.planes import density_of, f32, polar, rotate
from services.common.phantom.scene import Scene

_RED_SCALE = 0.86


def _draw_red_cell(radius: float, rng: np.random.Generator) -> DrawnCell:
    stretch = float(np.clip(1.0 + abs(rng.normal(0.0, 0.06)), 1.0, 1.16))
    if rng.random() < 0.06:
        stretch = rng.uniform(1.18, 1.28)
    canvas = canvas_for(radius, rng)
    u, v = rotate(canvas.u, canvas.v, rng.uniform(0.0, math.tau))
    bent = dataclasses.replace(canvas, u=f32(u / stretch), v=f32(v * stretch))
    edge = outline(bent, 0.018)
    pallor = rng.choice([0.12, 0.5, 0.68], p=[0.2, 0.4, 0.4]) * rng.uniform(0.8, 1.15)
    width = rng.uniform(0.34, 0.48)
    x, y = polar(rng.uniform(0.0, 0.1), rng.uniform(0.0, math.tau))
    centre = np.exp(-((away(bent, x, y) / width) ** 2.6))
    level = 1.0 - pallor * centre + 0.10 * np.exp(-(((edge + 0.14) / 0.12) ** 2)) + 0.02 * canvas.noise(0.3)
    level *= rng.uniform(0.82, 1.12)
    cover = canvas.cover(edge, soft=0.05 * radius + 0.8)
    density = f32(density_of((194, 146, 146)) * (level * cover)[..., None])
    solid = cover >= 0.5
    return trim(DrawnCell(density, solid, np.zeros_like(solid)), margin=4)


def draw_red_cells(scene: Scene, whites: list[LaidOut], options: PhantomOptions, rng: np.random.Generator) -> None:
    """Draw the red cells: those that touch white cells first, then as many as the density asks for."""
    for item in whites:
        if item.touched:
            _draw_touching(scene, item, whites, options, rng)
    misses = 0
    while misses < 25 and scene.red.bits.mean() < options.red_cell_density:
        cell = _draw_red_cell(_red_radius(options, rng), rng)
        spot = _red_spot(scene, cell, options, rng)
        if spot is None:
            misses += 1
            continue
        scene.add(cell, *spot)
        scene.red.stamp(cell.solid, *spot)


def _red_radius(options: PhantomOptions, rng: np.random.Generator) -> float:
    return float(_RED_SCALE * options.cell_radius * math.exp(0.06 * np.clip(rng.standard_normal(), -2, 2)))


def _draw_touching(scene: Scene, item: LaidOut, whites: list[LaidOut], options: PhantomOptions, rng: np.random.Generator) -> None:
    """One to three red cells that overlap the edge of a white cell, clear of the other white cells."""
    others = Occupancy(options.width, options.height)
    for other in whites:
        if other is not item:
            others.stamp(other.cell.solid, other.left, other.top, 3)
    wanted = int(rng.integers(1, 4))
    for _ in range(24):
        cell = _draw_red_cell(_red_radius(options, rng), rng)
        allowed = max(2, round(0.03 * np.count_nonzero(cell.solid)))
        spot = beside(item.cell, item.left, item.top, cell, allowed, rng.uniform(0.0, math.tau))
        crowded = scene.red.overlap(cell.solid, *spot) > 0.1 * np.count_nonzero(cell.solid)
        if crowded or others.overlap(cell.solid, *spot) or not _mostly_inside(cell, spot, options):
            continue
        scene.add(cell, *spot)
        scene.red.stamp(cell.solid, *spot)
        wanted -= 1
        if not wanted:
            return


def _mostly_inside(cell: DrawnCell, spot: tuple[int, int], options: PhantomOptions) -> bool:
    height, width = cell.solid.shape
    x, y = spot[0] + width / 2, spot[1] + height / 2
    return bool(0 < x < options.width and 0 < y < options.height)


def _red_spot(scene: Scene, cell: DrawnCell, options: PhantomOptions, rng: np.random.Generator) -> tuple[int, int] | None:
    height, width = cell.solid.shape
    allowed = 0.0 if rng.random() < 0.7 else rng.uniform(0.05, 0.35)
    for attempt in range(50):
        left = int(rng.integers(-width + 4, options.width - 4))
        top = int(rng.integers(-height + 4, options.height - 4))
        if scene.guard.overlap(cell.solid, left, top):
            continue
        visible = scene.red.visible(cell.solid, left, top)
        if scene.red.overlap(cell.solid, left, top) <= (allowed + 0.006 * attempt) * visible:
            return left, top
    return None
