"""Draw a white cell: outline, nucleus, chromatin, cytoplasm."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from services.common.phantom.canvas import Canvas, DrawnCell, away, canvas_for, outline, trim, turned
from services.common.phantom.options import CellKind
from services.common.phantom.planes import Plane, Rgb, density_of, ellipse, f32, lerp, polar, rotate, segment, smooth_max, smooth_min, wedge

_KIND_SCALE = {
    CellKind.LYMPHOCYTE: 1.0,
    CellKind.NEUTROPHIL: 1.25,
    CellKind.MONOCYTE: 1.5,
    CellKind.EOSINOPHIL: 1.3,
    CellKind.BLAST: 1.5,
}


def nominal_radius(kind: CellKind, cell_radius: float, rng: np.random.Generator) -> float:
    """Radius in pixels of one cell of a kind, by chance near that of its kind."""
    return float(cell_radius * _KIND_SCALE[kind] * math.exp(0.06 * np.clip(rng.standard_normal(), -2, 2)))


@dataclass(frozen=True)
class _Look:
    """Colours and texture of a kind of white cell.

    Attributes:
        dense: Colour of dense chromatin.
        pale: Colour of pale chromatin.
        cytoplasm: Colour of the cytoplasm.
        clump: Smallest and largest size of chromatin features.
        contrast: Share of the way from mean to dense or pale chromatin per standard deviation.
        bumps: Relative amplitude of the outline.
        mottle: Relative variation of the cytoplasm density.
        edge: Extra relative density at the cell's edge.
    """

    dense: Rgb
    pale: Rgb
    cytoplasm: Rgb
    clump: tuple[float, float]
    contrast: float
    bumps: float
    mottle: float
    edge: float


_LOOKS = {
    CellKind.LYMPHOCYTE: _Look((56, 33, 86), (112, 76, 134), (170, 185, 220), (0.06, 0.17), 0.36, 0.03, 0.12, 0.30),
    CellKind.NEUTROPHIL: _Look((60, 35, 100), (150, 112, 164), (222, 194, 203), (0.04, 0.13), 0.42, 0.045, 0.12, 0.45),
    CellKind.MONOCYTE: _Look((88, 52, 122), (146, 104, 164), (176, 172, 200), (0.024, 0.08), 0.42, 0.065, 0.18, 0.25),
    CellKind.EOSINOPHIL: _Look((68, 41, 108), (146, 108, 162), (222, 172, 168), (0.04, 0.13), 0.42, 0.035, 0.08, 0.10),
    CellKind.BLAST: _Look((96, 58, 134), (156, 118, 176), (156, 165, 208), (0.017, 0.055), 0.38, 0.05, 0.16, 0.55),
}


def draw_white_cell(kind: CellKind, radius: float, rng: np.random.Generator) -> DrawnCell:
    """Draw a white cell."""
    canvas = canvas_for(radius, rng)
    look = _LOOKS[kind]
    cell = outline(canvas, look.bumps)
    nucleus = f32(np.maximum(_NUCLEI[kind](canvas), cell + 0.05))
    density = lerp(_cytoplasm(canvas, kind, cell, nucleus), _chromatin(canvas, kind, nucleus), canvas.cover(nucleus))
    cover = canvas.cover(cell)
    return trim(DrawnCell(f32(density * cover[..., None]), cover >= 0.5, canvas.cover(nucleus) >= 0.5, kind))


def _lymphocyte_nucleus(canvas: Canvas) -> Plane:
    size = canvas.rng.uniform(0.82, 0.89)
    x, y = polar(canvas.rng.uniform(0.02, 0.08), canvas.rng.uniform(0.0, math.tau))
    dent = canvas.rng.uniform(0.0, 0.05)
    angle = canvas.rng.uniform(0.0, math.tau)
    body = ellipse(turned(canvas, x, y, angle), size, size * canvas.rng.uniform(0.93, 1.0))
    return f32(body + 0.015 * canvas.noise(0.2) + dent * np.exp(-8.0 * away(canvas, *polar(0.85, angle))))


def _blast_nucleus(canvas: Canvas) -> Plane:
    size = canvas.rng.uniform(0.85, 0.90)
    angle = canvas.rng.uniform(0.0, math.tau)
    x, y = polar(canvas.rng.uniform(0.05, 0.12), canvas.rng.uniform(0.0, math.tau))
    body = ellipse(turned(canvas, x, y, angle), size, size * canvas.rng.uniform(0.86, 0.96))
    dent = canvas.rng.choice([0.0, 0.16, 0.26])
    return f32(body + 0.02 * canvas.noise(0.25) + dent * np.exp(-9.0 * away(canvas, *polar(0.8, angle))))


def _monocyte_nucleus(canvas: Canvas) -> Plane:
    angle = canvas.rng.uniform(0.0, math.tau)
    x, y = polar(canvas.rng.uniform(0.05, 0.14), angle + math.pi)
    u, v = turned(canvas, x, y, angle)
    u = f32(u + 0.06 * canvas.noise(0.22))
    v = f32(v + 0.06 * canvas.noise(0.22))
    body = ellipse((u, v), canvas.rng.uniform(0.60, 0.66), canvas.rng.uniform(0.76, 0.82))
    depth = canvas.rng.uniform(0.38, 0.62)
    tip = canvas.rng.uniform(-0.12, 0.12)
    notch = wedge(u, v, (depth, tip), canvas.rng.uniform(0.06, 0.14), canvas.rng.uniform(0.25, 0.55))
    return smooth_max(body, f32(-notch), 0.16)


def _neutrophil_nucleus(canvas: Canvas) -> Plane:
    lobes = int(canvas.rng.integers(3, 5))
    spread = canvas.rng.uniform(0.41, 0.47)
    step = canvas.rng.uniform(4.1, 4.7) / lobes
    start = canvas.rng.uniform(0.0, math.tau)
    centres = [polar(spread * canvas.rng.uniform(0.9, 1.12), start + i * step + canvas.rng.uniform(-0.1, 0.1)) for i in range(lobes)]
    return _lobes(canvas, centres, 0.34 if lobes == 3 else 0.295)


def _eosinophil_nucleus(canvas: Canvas) -> Plane:
    start = canvas.rng.uniform(0.0, math.tau)
    opening = canvas.rng.uniform(1.9, 2.7)
    centres = [polar(canvas.rng.uniform(0.43, 0.49), start + side * opening / 2) for side in (-1, 1)]
    return _lobes(canvas, centres, 0.37)


_NUCLEI: dict[CellKind, Callable[[Canvas], Plane]] = {
    CellKind.LYMPHOCYTE: _lymphocyte_nucleus,
    CellKind.NEUTROPHIL: _neutrophil_nucleus,
    CellKind.MONOCYTE: _monocyte_nucleus,
    CellKind.EOSINOPHIL: _eosinophil_nucleus,
    CellKind.BLAST: _blast_nucleus,
}


def _lobes(canvas: Canvas, centres: list[tuple[float, float]], size: float) -> Plane:
    """Oval lobes along a bent row, neighbours joined by a thin bridge."""
    u = f32(canvas.u + 0.035 * canvas.noise(0.16))
    v = f32(canvas.v + 0.035 * canvas.noise(0.16))
    shape: Plane | None = None
    for x, y in centres:
        along = math.atan2(y, x) + math.pi / 2 + canvas.rng.uniform(-0.5, 0.5)
        length = size * canvas.rng.uniform(1.0, 1.22)
        lobe = ellipse(rotate(f32(u - x), f32(v - y), along), length, size * canvas.rng.uniform(0.8, 0.95))
        shape = lobe if shape is None else smooth_min(shape, lobe, 0.02)
    assert shape is not None
    for first, second in itertools.pairwise(centres):
        middle = (0.62 * (first[0] + second[0]), 0.62 * (first[1] + second[1]))
        for start, end in ((first, middle), (middle, second)):
            shape = smooth_min(shape, segment(u, v, start, end, 0.075), 0.08)
    return shape


def _cytoplasm(canvas: Canvas, kind: CellKind, cell: Plane, nucleus: Plane) -> Plane:
    look = _LOOKS[kind]
    edge = np.exp(-((cell / 0.055) ** 2))
    level = 1.0 + look.mottle * canvas.band(0.03, 0.12) + look.edge * edge
    density = f32(density_of(look.cytoplasm) * np.clip(level, 0.2, 3.0)[..., None])
    return _CYTOPLASM_DETAIL[kind](canvas, density, cell, nucleus)


def _plain_detail(canvas: Canvas, density: Plane, cell: Plane, nucleus: Plane) -> Plane:
    return density


def _neutrophil_detail(canvas: Canvas, density: Plane, cell: Plane, nucleus: Plane) -> Plane:
    grains = canvas.dots(55.0, 0.022) * 0.42 + canvas.dots(14.0, 0.03) * 0.35
    return lerp(density, density_of((150, 92, 150)), f32(np.minimum(grains, 1.0)))


def _monocyte_detail(canvas: Canvas, density: Plane, cell: Plane, nucleus: Plane) -> Plane:
    grains = canvas.dots(26.0, 0.018) * 0.3
    density = lerp(density, density_of((142, 100, 165)), f32(grains))
    room = np.flatnonzero((cell < -0.16) & (nucleus > -0.02))
    for _ in range(int(canvas.rng.integers(2, 6))):
        spot = int(canvas.rng.choice(room))
        hole = away(canvas, float(canvas.u.flat[spot]), float(canvas.v.flat[spot]))
        size = canvas.rng.uniform(0.035, 0.075)
        density = f32(density * (1.0 - 0.85 * canvas.cover(f32(hole - size), soft=1.5))[..., None])
    return density


def _eosinophil_detail(canvas: Canvas, density: Plane, cell: Plane, nucleus: Plane) -> Plane:
    lower = lerp(density, density_of((206, 126, 118)), f32(0.8 * canvas.dots(70.0, 0.055)))
    return lerp(lower, density_of((184, 92, 92)), f32(0.75 * canvas.dots(48.0, 0.045)))


def _blast_detail(canvas: Canvas, density: Plane, cell: Plane, nucleus: Plane) -> Plane:
    zone = 1.0 - 0.35 * np.exp(-((np.maximum(nucleus, 0.0) / 0.06) ** 2))
    return f32(density * zone[..., None])


_CYTOPLASM_DETAIL: dict[CellKind, Callable[[Canvas, Plane, Plane, Plane], Plane]] = {
    CellKind.LYMPHOCYTE: _plain_detail,
    CellKind.NEUTROPHIL: _neutrophil_detail,
    CellKind.MONOCYTE: _monocyte_detail,
    CellKind.EOSINOPHIL: _eosinophil_detail,
    CellKind.BLAST: _blast_detail,
}


def _chromatin(canvas: Canvas, kind: CellKind, nucleus: Plane) -> Plane:
    look = _LOOKS[kind]
    texture = 0.8 * canvas.band(*look.clump) + 0.35 * canvas.noise(0.3)
    share = 0.62 + look.contrast * np.tanh(texture)
    share += 0.45 * np.exp(-((nucleus / 0.028) ** 2))
    if kind is CellKind.MONOCYTE:
        share += _folds(canvas)
    if kind is CellKind.BLAST:
        share += _nucleoli(canvas, nucleus)
    return lerp(density_of(look.pale), density_of(look.dense), f32(np.clip(share, -0.35, 1.15)))


def _folds(canvas: Canvas) -> Plane:
    """Dark creases of a folded nucleus as an added share of dense chromatin."""
    creases = np.zeros_like(canvas.u)
    for _ in range(2):
        angle = canvas.rng.uniform(0.0, math.tau)
        x, y = polar(canvas.rng.uniform(0.0, 0.35), canvas.rng.uniform(0.0, math.tau))
        u, v = turned(canvas, x, y, angle)
        line = u - 0.9 * v**2 + 0.03 * canvas.noise(0.2)
        creases += 0.4 * np.exp(-((line / 0.025) ** 2)) * np.exp(-((v / 0.3) ** 4))
    return f32(creases)


def _nucleoli(canvas: Canvas, nucleus: Plane) -> Plane:
    """One or two pale nucleoli with a darker margin as a change of the share of dense chromatin."""
    change = np.zeros_like(canvas.u)
    room = np.flatnonzero(nucleus < -0.28)
    if not room.size:
        return f32(change)
    for _ in range(int(canvas.rng.integers(1, 3))):
        spot = int(canvas.rng.choice(room))
        gap = away(canvas, float(canvas.u.flat[spot]), float(canvas.v.flat[spot]))
        gap = f32(gap - canvas.rng.uniform(0.11, 0.17) + 0.025 * canvas.noise(0.10))
        change = np.minimum(change, -0.62 * canvas.cover(gap, soft=0.09 * canvas.radius))
        change = change + 0.16 * np.exp(-(((gap - 0.03) / 0.03) ** 2))
    return f32(change)
