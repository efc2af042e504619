"""Drawn blood-smear phantoms with known truth.

A phantom is a seeded drawing of a May-Grünwald-Giemsa stained peripheral blood smear: white cells of
known kind, place and size among red cells and platelets. Absorption is added up in optical density and
turned into light by Beer-Lambert, ``image = light * exp(-sum OD)``, then blurred, given sensor noise and
stored with 8 bits per channel. Nothing in it was taken from a patient.

Coordinates are pixels, x to the right and y down, with pixel centres at whole numbers. The same seed and
options always give the same image. Blur, noise, stain, light and caption never move a cell.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

PHANTOM_TEXT_KEY = "dl4all-phantom"

Plane = NDArray[np.float32]
Bitmap = NDArray[np.bool_]
Rgb = tuple[float, float, float]

_BACKGROUND: Rgb = (250.0, 229.0, 209.0)
_SHORT_CAPTION_BELOW = 300
_WINDOW_REACH = 1.45
_RED_SCALE = 0.86


class CellKind(StrEnum):
    """Kinds of white cell that can be drawn."""

    LYMPHOCYTE = "lymphocyte"
    NEUTROPHIL = "neutrophil"
    MONOCYTE = "monocyte"
    EOSINOPHIL = "eosinophil"
    BLAST = "blast"


_KIND_SCALE = {
    CellKind.LYMPHOCYTE: 1.0,
    CellKind.NEUTROPHIL: 1.25,
    CellKind.MONOCYTE: 1.5,
    CellKind.EOSINOPHIL: 1.3,
    CellKind.BLAST: 1.5,
}


@dataclass(frozen=True)
class PhantomCell:
    """Truth of one white cell, measured from its drawn mask before the optical blur.

    Attributes:
        center_x: Column of the mask centroid, pixels.
        center_y: Row of the mask centroid, pixels.
        radius: sqrt(area / pi) of the whole cell, cytoplasm included, pixels.
        kind: Kind of the cell.
        nucleus_radius: sqrt(area / pi) of the nucleus, all lobes together, pixels.
    """

    center_x: float
    center_y: float
    radius: float
    kind: CellKind
    nucleus_radius: float


@dataclass(frozen=True)
class PhantomOptions:
    """What is drawn and how it is imaged.

    Attributes:
        width: Image width, pixels, 64..8192.
        height: Image height, pixels, 64..8192.
        cells: Number of white cells, 0..2000.
        kinds: Kinds of white cell, at least one; they are dealt out evenly in random order.
        cell_radius: Median radius of a lymphocyte, pixels, 6..400; the other kinds scale with it.
        red_cell_density: Fraction of the image area under red cells, 0..0.7, met as far as room allows.
        platelets: Number of platelets, 0..2000.
        blur_sigma: Standard deviation of the optical blur, pixels, 0..10.
        stain: Strength of the stain, 0.6..1.5, a factor on all optical densities.
        stain_hue: Hue shift, -1 (pink) .. +1 (blue).
        light: Unevenness of the illumination, 0 (flat) .. 0.5 (strong gradient and vignetting).
        brightness: Factor on the light, 0.7..1.2; above about 1 the background saturates.
        noise: Standard deviation of the sensor noise, 8-bit units, 0..25.
        touching: Fraction of white cells touched by red cells or by another white cell, 0..1; a fractional
            number of cells is rounded up or down at random. Without red cells only white cells can touch.
        label: Whether a caption saying that this is a phantom is drawn along the lower edge.

    Raises:
        ValueError: If a field is outside its range; the message names the field.
    """

    width: int = 1024
    height: int = 768
    cells: int = 8
    kinds: tuple[CellKind, ...] = tuple(CellKind)
    cell_radius: float = 42.0
    red_cell_density: float = 0.35
    platelets: int = 12
    blur_sigma: float = 0.8
    stain: float = 1.0
    stain_hue: float = 0.0
    light: float = 0.15
    brightness: float = 1.0
    noise: float = 2.0
    touching: float = 0.2
    label: bool = True

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if name in _WHOLE and not isinstance(value, int):
                raise ValueError(f"{name} must be a whole number, but is {value!r}.")
            if not low <= value <= high:
                raise ValueError(f"{name} must lie between {low:g} and {high:g}, but is {value}.")
        if not self.kinds:
            raise ValueError("kinds must name at least one kind of cell, but is empty.")
        unknown = [kind for kind in self.kinds if not isinstance(kind, CellKind)]
        if unknown:
            raise ValueError(f"kinds must hold CellKind members only, but holds {unknown[0]!r}.")


_RANGES: dict[str, tuple[float, float]] = {
    "width": (64, 8192),
    "height": (64, 8192),
    "cells": (0, 2000),
    "cell_radius": (6.0, 400.0),
    "red_cell_density": (0.0, 0.7),
    "platelets": (0, 2000),
    "blur_sigma": (0.0, 10.0),
    "stain": (0.6, 1.5),
    "stain_hue": (-1.0, 1.0),
    "light": (0.0, 0.5),
    "brightness": (0.7, 1.2),
    "noise": (0.0, 25.0),
    "touching": (0.0, 1.0),
}

_WHOLE = frozenset({"width", "height", "cells", "platelets"})

DEFAULT_FIELD = PhantomOptions()
DEFAULT_CROP = PhantomOptions(width=264, height=264, cells=1, platelets=1, touching=0.5)


@dataclass(frozen=True, eq=False)
class Phantom:
    """A drawn image and its truth; the arrays are read-only.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        cells: White cells, from top to bottom.
        mask: (H, W) uint16, 0 for background and i + 1 inside ``cells[i]``.
        seed: Seed of the drawing.
        options: Options of the drawing.
    """

    image: NDArray[np.uint8]
    cells: tuple[PhantomCell, ...]
    mask: NDArray[np.uint16]
    seed: int
    options: PhantomOptions


def smear_field(seed: int, options: PhantomOptions = DEFAULT_FIELD) -> Phantom:
    """Draw a field of a blood smear.

    All white cells lie fully inside the image and share no pixel.

    Args:
        seed: Seed of the drawing, 0 or greater.
        options: What is drawn and how it is imaged.

    Returns:
        The image of ``options.height`` x ``options.width`` pixels with its truth.

    Raises:
        ValueError: If the seed is negative or the white cells do not fit into the image.
    """
    _check_seed(seed)
    rng = _stream(seed, _Purpose.CELLS)
    kinds = _deal_kinds(options, rng)
    radii = [_nominal_radius(kind, options.cell_radius, rng) for kind in kinds]
    if math.pi * sum(radius**2 for radius in radii) > options.width * (options.height - _strip_height(options)):
        raise ValueError(_no_room(options))
    patches = [_white_patch(kind, radius, rng) for kind, radius in zip(kinds, radii, strict=True)]
    return _render(seed, options, _place_whites(patches, options, _stream(seed, _Purpose.LAYOUT)))


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
    _check_seed(seed)
    used = dataclasses.replace(options, width=side, height=side, cells=1, kinds=(kind,), cell_radius=cell_radius)
    rng = _stream(seed, _Purpose.CELLS)
    patch = _white_patch(kind, _nominal_radius(kind, cell_radius, rng), rng)
    return _render(seed, used, [_place_central(patch, used, _stream(seed, _Purpose.LAYOUT))])


def encode_png(phantom: Phantom) -> bytes:
    """Encode a phantom as PNG with its truth in a text chunk.

    The chunk has the key ``PHANTOM_TEXT_KEY`` and holds a JSON object with the members ``seed``,
    ``options`` and ``cells``, the last two with the fields of their dataclasses.

    Args:
        phantom: The phantom to encode.

    Returns:
        The PNG file, lossless 8-bit RGB.
    """
    truth = {
        "seed": phantom.seed,
        "options": dataclasses.asdict(phantom.options),
        "cells": [dataclasses.asdict(cell) for cell in phantom.cells],
    }
    info = PngInfo()
    info.add_text(PHANTOM_TEXT_KEY, json.dumps(truth))
    buffer = io.BytesIO()
    Image.fromarray(phantom.image).save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()


class _Purpose(IntEnum):
    CELLS = 0
    LAYOUT = 1
    RED_CELLS = 2
    PLATELETS = 3
    LIGHT = 4
    NOISE = 5


def _stream(seed: int, purpose: _Purpose) -> np.random.Generator:
    return np.random.default_rng([seed, int(purpose)])


def _check_seed(seed: int) -> None:
    if seed < 0:
        raise ValueError(f"seed must be 0 or greater, but is {seed}.")


def _deal_kinds(options: PhantomOptions, rng: np.random.Generator) -> list[CellKind]:
    start = int(rng.integers(len(options.kinds)))
    dealt = [options.kinds[(start + i) % len(options.kinds)] for i in range(options.cells)]
    return [dealt[i] for i in rng.permutation(options.cells)]


def _nominal_radius(kind: CellKind, cell_radius: float, rng: np.random.Generator) -> float:
    return float(cell_radius * _KIND_SCALE[kind] * math.exp(0.06 * np.clip(rng.standard_normal(), -2, 2)))


def _no_room(options: PhantomOptions) -> str:
    return (
        f"cells must fit into the image, but {options.cells} cells of cell_radius {options.cell_radius:g} "
        f"do not fit into {options.width} x {options.height} pixels."
    )


# ---------------------------------------------------------------------------------------------------------
# Drawing of one cell. Lengths are in units of the cell radius, distances are negative inside a shape.


@dataclass(frozen=True)
class _Canvas:
    """Square window around one cell.

    Attributes:
        u: (N, N) column relative to the cell centre.
        v: (N, N) row relative to the cell centre.
        radius: Cell radius in pixels.
        rng: Source of all randomness of the cell.
    """

    u: Plane
    v: Plane
    radius: float
    rng: np.random.Generator

    def cover(self, distance: Plane, soft: float = 1.0) -> Plane:
        """Coverage 0..1 of a shape whose edge is ``soft`` pixels wide."""
        return _f32(np.clip(0.5 - distance * (self.radius / soft), 0.0, 1.0))

    def noise(self, scale: float) -> Plane:
        """Smooth noise of mean 0 and variance 1 with features of size ``scale``."""
        return _standard(self._blur(_white_noise(self.u.shape, self.rng), scale))

    def band(self, fine: float, coarse: float) -> Plane:
        """Band-pass noise of mean 0 and variance 1 with features between two sizes."""
        white = _white_noise(self.u.shape, self.rng)
        return _standard(self._blur(white, fine) - self._blur(white, coarse))

    def dots(self, count: float, size: float) -> Plane:
        """Round grains of radius ``size`` and strength 0..1, ``count`` per unit area."""
        chance = count / self.radius**2
        seeds = self.rng.random(self.u.shape) < chance
        strength = _f32(seeds * self.rng.uniform(0.5, 1.1, self.u.shape))
        return _f32(np.minimum(cv2.filter2D(strength, -1, _disc(size * self.radius)), 1.0))

    def _blur(self, plane: Plane, scale: float) -> Plane:
        return _gauss(plane, max(scale * self.radius, 0.6))


@dataclass(frozen=True)
class _Patch:
    """A drawn cell.

    Attributes:
        density: (h, w, 3) optical density of red, green and blue.
        solid: (h, w) the cell.
        nucleus: (h, w) its nucleus.
    """

    density: Plane
    solid: Bitmap
    nucleus: Bitmap
    kind: CellKind | None = None


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


def _white_patch(kind: CellKind, radius: float, rng: np.random.Generator) -> _Patch:
    canvas = _canvas(radius, rng)
    look = _LOOKS[kind]
    cell = _outline(canvas, look.bumps)
    nucleus = _f32(np.maximum(_NUCLEI[kind](canvas), cell + 0.05))
    density = _lerp(_cytoplasm(canvas, kind, cell, nucleus), _chromatin(canvas, kind, nucleus), canvas.cover(nucleus))
    cover = canvas.cover(cell)
    return _trim(_Patch(_f32(density * cover[..., None]), cover >= 0.5, canvas.cover(nucleus) >= 0.5, kind))


def _canvas(radius: float, rng: np.random.Generator) -> _Canvas:
    half = math.ceil(radius * _WINDOW_REACH) + 2
    axis = np.arange(-half, half + 1)
    shift_x, shift_y = rng.uniform(-0.5, 0.5, 2)
    u, v = np.meshgrid((axis - shift_x) / radius, (axis - shift_y) / radius)
    return _Canvas(_f32(u), _f32(v), radius, rng)


def _trim(patch: _Patch, margin: int = 2) -> _Patch:
    rows = np.flatnonzero(patch.solid.any(axis=1))
    columns = np.flatnonzero(patch.solid.any(axis=0))
    box = (
        slice(max(rows[0] - margin, 0), rows[-1] + margin + 1),
        slice(max(columns[0] - margin, 0), columns[-1] + margin + 1),
    )
    return _Patch(patch.density[box], patch.solid[box], patch.nucleus[box], patch.kind)


def _outline(canvas: _Canvas, bumps: float) -> Plane:
    """Distance to a closed outline of low Fourier order whose area is that of the unit disc."""
    theta = np.arctan2(canvas.v, canvas.u)
    reach = np.ones_like(theta)
    power = 1.0
    for order in range(2, 8):
        amplitude = float(np.clip(canvas.rng.normal(0.0, bumps * (2.0 / order) ** 1.5), -2 * bumps, 2 * bumps))
        reach += amplitude * np.cos(order * theta + canvas.rng.uniform(0.0, math.tau))
        power += amplitude**2 / 2.0
    reach = np.clip(reach / math.sqrt(power), 0.65, 1.35)
    return _f32(np.hypot(canvas.u, canvas.v) - reach)


def _lymphocyte_nucleus(canvas: _Canvas) -> Plane:
    size = canvas.rng.uniform(0.82, 0.89)
    x, y = _polar(canvas.rng.uniform(0.02, 0.08), canvas.rng.uniform(0.0, math.tau))
    dent = canvas.rng.uniform(0.0, 0.05)
    angle = canvas.rng.uniform(0.0, math.tau)
    body = _ellipse(_turned(canvas, x, y, angle), size, size * canvas.rng.uniform(0.93, 1.0))
    return _f32(body + 0.015 * canvas.noise(0.2) + dent * np.exp(-8.0 * _away(canvas, *_polar(0.85, angle))))


def _blast_nucleus(canvas: _Canvas) -> Plane:
    size = canvas.rng.uniform(0.85, 0.90)
    angle = canvas.rng.uniform(0.0, math.tau)
    x, y = _polar(canvas.rng.uniform(0.05, 0.12), canvas.rng.uniform(0.0, math.tau))
    body = _ellipse(_turned(canvas, x, y, angle), size, size * canvas.rng.uniform(0.86, 0.96))
    dent = canvas.rng.choice([0.0, 0.16, 0.26])
    return _f32(body + 0.02 * canvas.noise(0.25) + dent * np.exp(-9.0 * _away(canvas, *_polar(0.8, angle))))


def _monocyte_nucleus(canvas: _Canvas) -> Plane:
    angle = canvas.rng.uniform(0.0, math.tau)
    x, y = _polar(canvas.rng.uniform(0.05, 0.14), angle + math.pi)
    u, v = _turned(canvas, x, y, angle)
    u = _f32(u + 0.06 * canvas.noise(0.22))
    v = _f32(v + 0.06 * canvas.noise(0.22))
    body = _ellipse((u, v), canvas.rng.uniform(0.60, 0.66), canvas.rng.uniform(0.76, 0.82))
    depth = canvas.rng.uniform(0.38, 0.62)
    tip = canvas.rng.uniform(-0.12, 0.12)
    notch = _wedge(u, v, (depth, tip), canvas.rng.uniform(0.06, 0.14), canvas.rng.uniform(0.25, 0.55))
    return _smooth_max(body, _f32(-notch), 0.16)


def _neutrophil_nucleus(canvas: _Canvas) -> Plane:
    lobes = int(canvas.rng.integers(3, 5))
    spread = canvas.rng.uniform(0.41, 0.47)
    step = canvas.rng.uniform(4.1, 4.7) / lobes
    start = canvas.rng.uniform(0.0, math.tau)
    centres = [_polar(spread * canvas.rng.uniform(0.9, 1.12), start + i * step + canvas.rng.uniform(-0.1, 0.1)) for i in range(lobes)]
    return _lobes(canvas, centres, 0.34 if lobes == 3 else 0.295)


def _eosinophil_nucleus(canvas: _Canvas) -> Plane:
    start = canvas.rng.uniform(0.0, math.tau)
    opening = canvas.rng.uniform(1.9, 2.7)
    centres = [_polar(canvas.rng.uniform(0.43, 0.49), start + side * opening / 2) for side in (-1, 1)]
    return _lobes(canvas, centres, 0.37)


_NUCLEI: dict[CellKind, Callable[[_Canvas], Plane]] = {
    CellKind.LYMPHOCYTE: _lymphocyte_nucleus,
    CellKind.NEUTROPHIL: _neutrophil_nucleus,
    CellKind.MONOCYTE: _monocyte_nucleus,
    CellKind.EOSINOPHIL: _eosinophil_nucleus,
    CellKind.BLAST: _blast_nucleus,
}


def _lobes(canvas: _Canvas, centres: list[tuple[float, float]], size: float) -> Plane:
    """Oval lobes along a bent row, neighbours joined by a thin bridge."""
    u = _f32(canvas.u + 0.035 * canvas.noise(0.16))
    v = _f32(canvas.v + 0.035 * canvas.noise(0.16))
    shape: Plane | None = None
    for x, y in centres:
        along = math.atan2(y, x) + math.pi / 2 + canvas.rng.uniform(-0.5, 0.5)
        length = size * canvas.rng.uniform(1.0, 1.22)
        lobe = _ellipse(_rotate(_f32(u - x), _f32(v - y), along), length, size * canvas.rng.uniform(0.8, 0.95))
        shape = lobe if shape is None else _smooth_min(shape, lobe, 0.02)
    assert shape is not None
    for first, second in itertools.pairwise(centres):
        middle = (0.62 * (first[0] + second[0]), 0.62 * (first[1] + second[1]))
        for start, end in ((first, middle), (middle, second)):
            shape = _smooth_min(shape, _segment(u, v, start, end, 0.075), 0.08)
    return shape


def _cytoplasm(canvas: _Canvas, kind: CellKind, cell: Plane, nucleus: Plane) -> Plane:
    look = _LOOKS[kind]
    edge = np.exp(-((cell / 0.055) ** 2))
    level = 1.0 + look.mottle * canvas.band(0.03, 0.12) + look.edge * edge
    density = _f32(_density_of(look.cytoplasm) * np.clip(level, 0.2, 3.0)[..., None])
    return _CYTOPLASM_DETAIL[kind](canvas, density, cell, nucleus)


def _plain_detail(canvas: _Canvas, density: Plane, cell: Plane, nucleus: Plane) -> Plane:
    return density


def _neutrophil_detail(canvas: _Canvas, density: Plane, cell: Plane, nucleus: Plane) -> Plane:
    grains = canvas.dots(55.0, 0.022) * 0.42 + canvas.dots(14.0, 0.03) * 0.35
    return _lerp(density, _density_of((150, 92, 150)), _f32(np.minimum(grains, 1.0)))


def _monocyte_detail(canvas: _Canvas, density: Plane, cell: Plane, nucleus: Plane) -> Plane:
    grains = canvas.dots(26.0, 0.018) * 0.3
    density = _lerp(density, _density_of((142, 100, 165)), _f32(grains))
    room = np.flatnonzero((cell < -0.16) & (nucleus > -0.02))
    for _ in range(int(canvas.rng.integers(2, 6))):
        place = int(canvas.rng.choice(room))
        hole = _away(canvas, float(canvas.u.flat[place]), float(canvas.v.flat[place]))
        size = canvas.rng.uniform(0.035, 0.075)
        density = _f32(density * (1.0 - 0.85 * canvas.cover(_f32(hole - size), soft=1.5))[..., None])
    return density


def _eosinophil_detail(canvas: _Canvas, density: Plane, cell: Plane, nucleus: Plane) -> Plane:
    lower = _lerp(density, _density_of((206, 126, 118)), _f32(0.8 * canvas.dots(70.0, 0.055)))
    return _lerp(lower, _density_of((184, 92, 92)), _f32(0.75 * canvas.dots(48.0, 0.045)))


def _blast_detail(canvas: _Canvas, density: Plane, cell: Plane, nucleus: Plane) -> Plane:
    zone = 1.0 - 0.35 * np.exp(-((np.maximum(nucleus, 0.0) / 0.06) ** 2))
    return _f32(density * zone[..., None])


_CYTOPLASM_DETAIL: dict[CellKind, Callable[[_Canvas, Plane, Plane, Plane], Plane]] = {
    CellKind.LYMPHOCYTE: _plain_detail,
    CellKind.NEUTROPHIL: _neutrophil_detail,
    CellKind.MONOCYTE: _monocyte_detail,
    CellKind.EOSINOPHIL: _eosinophil_detail,
    CellKind.BLAST: _blast_detail,
}


def _chromatin(canvas: _Canvas, kind: CellKind, nucleus: Plane) -> Plane:
    look = _LOOKS[kind]
    texture = 0.8 * canvas.band(*look.clump) + 0.35 * canvas.noise(0.3)
    share = 0.62 + look.contrast * np.tanh(texture)
    share += 0.45 * np.exp(-((nucleus / 0.028) ** 2))
    if kind is CellKind.MONOCYTE:
        share += _folds(canvas)
    if kind is CellKind.BLAST:
        share += _nucleoli(canvas, nucleus)
    return _lerp(_density_of(look.pale), _density_of(look.dense), _f32(np.clip(share, -0.35, 1.15)))


def _folds(canvas: _Canvas) -> Plane:
    """Dark creases of a folded nucleus as an added share of dense chromatin."""
    creases = np.zeros_like(canvas.u)
    for _ in range(2):
        angle = canvas.rng.uniform(0.0, math.tau)
        x, y = _polar(canvas.rng.uniform(0.0, 0.35), canvas.rng.uniform(0.0, math.tau))
        u, v = _turned(canvas, x, y, angle)
        line = u - 0.9 * v**2 + 0.03 * canvas.noise(0.2)
        creases += 0.4 * np.exp(-((line / 0.025) ** 2)) * np.exp(-((v / 0.3) ** 4))
    return _f32(creases)


def _nucleoli(canvas: _Canvas, nucleus: Plane) -> Plane:
    """One or two pale nucleoli with a darker margin as a change of the share of dense chromatin."""
    change = np.zeros_like(canvas.u)
    room = np.flatnonzero(nucleus < -0.28)
    if not room.size:
        return _f32(change)
    for _ in range(int(canvas.rng.integers(1, 3))):
        place = int(canvas.rng.choice(room))
        gap = _away(canvas, float(canvas.u.flat[place]), float(canvas.v.flat[place]))
        gap = _f32(gap - canvas.rng.uniform(0.11, 0.17) + 0.025 * canvas.noise(0.10))
        change = np.minimum(change, -0.62 * canvas.cover(gap, soft=0.09 * canvas.radius))
        change = change + 0.16 * np.exp(-(((gap - 0.03) / 0.03) ** 2))
    return _f32(change)


def _red_patch(radius: float, rng: np.random.Generator) -> _Patch:
    stretch = float(np.clip(1.0 + abs(rng.normal(0.0, 0.06)), 1.0, 1.16))
    if rng.random() < 0.06:
        stretch = rng.uniform(1.18, 1.28)
    canvas = _canvas(radius, rng)
    u, v = _rotate(canvas.u, canvas.v, rng.uniform(0.0, math.tau))
    bent = dataclasses.replace(canvas, u=_f32(u / stretch), v=_f32(v * stretch))
    edge = _outline(bent, 0.018)
    pallor = rng.choice([0.12, 0.5, 0.68], p=[0.2, 0.4, 0.4]) * rng.uniform(0.8, 1.15)
    width = rng.uniform(0.34, 0.48)
    x, y = _polar(rng.uniform(0.0, 0.1), rng.uniform(0.0, math.tau))
    centre = np.exp(-((_away(bent, x, y) / width) ** 2.6))
    level = 1.0 - pallor * centre + 0.10 * np.exp(-(((edge + 0.14) / 0.12) ** 2)) + 0.02 * canvas.noise(0.3)
    level *= rng.uniform(0.82, 1.12)
    cover = canvas.cover(edge, soft=0.05 * radius + 0.8)
    density = _f32(_density_of((194, 146, 146)) * (level * cover)[..., None])
    solid = cover >= 0.5
    return _trim(_Patch(density, solid, np.zeros_like(solid)), margin=4)


def _platelet_patch(radius: float, rng: np.random.Generator) -> _Patch:
    canvas = _canvas(radius, rng)
    edge = _outline(canvas, 0.10)
    body = canvas.cover(edge, soft=0.35 * radius)
    grains = _f32(np.clip(0.45 + 0.4 * canvas.band(0.12, 0.4), 0.0, 1.0) * canvas.cover(_f32(edge + 0.2), soft=0.3 * radius))
    density = _lerp(_density_of((198, 172, 206)), _density_of((118, 74, 146)), grains)
    solid = edge <= 0.0
    return _trim(_Patch(_f32(density * body[..., None]), solid, np.zeros_like(solid)), margin=3)


def _f32(values: NDArray[np.generic]) -> Plane:
    return np.asarray(values, dtype=np.float32)


def _density_of(rgb: Rgb) -> Plane:
    """(3,) optical density that turns the background into ``rgb``."""
    return _f32(-np.log(np.asarray(rgb) / np.asarray(_BACKGROUND)))


def _lerp(first: Plane, second: Plane, share: Plane) -> Plane:
    return _f32(first + (second - first) * share[..., None])


def _white_noise(shape: tuple[int, ...], rng: np.random.Generator) -> Plane:
    return rng.standard_normal(shape, dtype=np.float32)


def _standard(plane: Plane) -> Plane:
    return _f32((plane - plane.mean()) / (plane.std() + 1e-12))


def _gauss(plane: Plane, sigma: float) -> Plane:
    return _f32(cv2.GaussianBlur(plane, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101))


def _disc(radius: float) -> Plane:
    half = math.ceil(radius) + 1
    axis = np.arange(-half, half + 1)
    return _f32(np.clip(radius + 0.5 - np.hypot(*np.meshgrid(axis, axis)), 0.0, 1.0))


def _polar(length: float, angle: float) -> tuple[float, float]:
    return length * math.cos(angle), length * math.sin(angle)


def _rotate(u: Plane, v: Plane, angle: float) -> tuple[Plane, Plane]:
    c, s = math.cos(angle), math.sin(angle)
    return _f32(c * u + s * v), _f32(c * v - s * u)


def _turned(canvas: _Canvas, x: float, y: float, angle: float) -> tuple[Plane, Plane]:
    return _rotate(_f32(canvas.u - x), _f32(canvas.v - y), angle)


def _away(canvas: _Canvas, x: float, y: float) -> Plane:
    return _f32(np.hypot(canvas.u - x, canvas.v - y))


def _ellipse(axes: tuple[Plane, Plane], a: float, b: float) -> Plane:
    level = np.maximum(np.hypot(axes[0] / a, axes[1] / b), 1e-4)
    slope = np.hypot(axes[0] / a**2, axes[1] / b**2)
    return _f32(level * (level - 1.0) / np.maximum(slope, 1e-6))


def _segment(u: Plane, v: Plane, start: tuple[float, float], end: tuple[float, float], thickness: float) -> Plane:
    du, dv = end[0] - start[0], end[1] - start[1]
    along = np.clip(((u - start[0]) * du + (v - start[1]) * dv) / max(du**2 + dv**2, 1e-9), 0.0, 1.0)
    return _f32(np.hypot(u - start[0] - along * du, v - start[1] - along * dv) - thickness)


def _wedge(u: Plane, v: Plane, tip: tuple[float, float], thickness: float, slope: float) -> Plane:
    """Distance to a notch with a round tip that opens along u."""
    ahead = np.maximum(u - tip[0], 0.0)
    behind = np.minimum(u - tip[0], 0.0)
    return _f32(np.hypot(behind, v - tip[1]) - thickness - slope * ahead)


def _smooth_min(first: Plane, second: Plane, width: float) -> Plane:
    share = np.maximum(width - np.abs(first - second), 0.0) / width
    return _f32(np.minimum(first, second) - share**2 * width / 4.0)


def _smooth_max(first: Plane, second: Plane, width: float) -> Plane:
    return _f32(-_smooth_min(_f32(-first), _f32(-second), width))


# ---------------------------------------------------------------------------------------------------------
# Layout of the cells in the image.


@dataclass(frozen=True)
class _Placed:
    patch: _Patch
    left: int
    top: int
    touched: bool


class _Occupancy:
    """Bitmap of the image onto which patches are stamped; what lies outside is ignored.

    Attributes:
        bits: (H, W) the stamped pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        self.bits: Bitmap = np.zeros((height, width), dtype=np.bool_)

    def overlap(self, solid: Bitmap, left: int, top: int) -> int:
        image, patch = _clip(solid.shape, left, top, self.bits.shape)
        return int(np.count_nonzero(self.bits[image] & solid[patch]))

    def visible(self, solid: Bitmap, left: int, top: int) -> int:
        _, patch = _clip(solid.shape, left, top, self.bits.shape)
        return int(np.count_nonzero(solid[patch]))

    def stamp(self, solid: Bitmap, left: int, top: int, grow: int = 0) -> None:
        if grow > 0:
            kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * grow + 1, 2 * grow + 1))
            solid = cv2.dilate(np.pad(solid, grow).astype(np.uint8), kernel) > 0
        image, patch = _clip(solid.shape, left - grow, top - grow, self.bits.shape)
        self.bits[image] |= solid[patch]


def _clip(shape: tuple[int, ...], left: int, top: int, size: tuple[int, ...]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Slices of the image and of the patch where the two meet."""
    image, patch = [], []
    for offset, length, limit in ((top, shape[0], size[0]), (left, shape[1], size[1])):
        low = min(max(offset, 0), limit)
        high = max(min(offset + length, limit), low)
        image.append(slice(low, high))
        patch.append(slice(low - offset, high - offset))
    return (image[0], image[1]), (patch[0], patch[1])


def _free_span(patch: _Patch, options: PhantomOptions) -> tuple[int, int]:
    """Largest left and top that keep a patch inside the image and above the caption."""
    height, width = patch.solid.shape
    return options.width - width, options.height - _strip_height(options) - height


def _place_central(patch: _Patch, options: PhantomOptions, rng: np.random.Generator) -> _Placed:
    span_x, span_y = _free_span(patch, options)
    if min(span_x, span_y) < 0:
        raise ValueError(_no_room(options))
    height, width = patch.solid.shape
    jitter_x, jitter_y = rng.integers(-4, 5, 2)
    left = min(max((options.width - width) // 2 + int(jitter_x), 0), span_x)
    top = min(max((options.height - height) // 2 + int(jitter_y), 0), span_y)
    return _Placed(patch, left, top, bool(rng.random() < options.touching))


def _place_whites(patches: list[_Patch], options: PhantomOptions, rng: np.random.Generator) -> list[_Placed]:
    groups = _group(patches, options, rng)
    attempts = 10
    for attempt in range(attempts):
        gap = round(0.25 * options.cell_radius * (1.0 - attempt / (attempts - 1)))
        placed = _try_layout(groups, options, gap, rng)
        if placed is not None:
            return sorted(placed, key=_center_row)
    raise ValueError(_no_room(options))


def _center_row(item: _Placed) -> float:
    return float(np.nonzero(item.patch.solid)[0].mean() + item.top)


def _group(patches: list[_Patch], options: PhantomOptions, rng: np.random.Generator) -> list[tuple[list[_Patch], bool]]:
    """Cells to be placed together, with whether they are touched; the largest groups come first."""
    count = min(int(options.touching * len(patches) + rng.random()), len(patches))
    touched = list(patches[:count])
    groups: list[tuple[list[_Patch], bool]] = [([patch], False) for patch in patches[count:]]
    while touched:
        pair = len(touched) > 1 and (options.red_cell_density == 0 or rng.random() < 0.35)
        groups.append(([touched.pop() for _ in range(2 if pair else 1)], True))
    return sorted(groups, key=lambda group: -sum(patch.solid.size for patch in group[0]))


def _try_layout(groups: list[tuple[list[_Patch], bool]], options: PhantomOptions, gap: int, rng: np.random.Generator) -> list[_Placed] | None:
    taken = _Occupancy(options.width, options.height)
    placed: list[_Placed] = []
    for members, touched in groups:
        spots = _find_room(members, options, taken, rng)
        if spots is None:
            return None
        for patch, (left, top) in zip(members, spots, strict=True):
            taken.stamp(patch.solid, left, top, gap)
            placed.append(_Placed(patch, left, top, touched))
    return placed


def _find_room(members: list[_Patch], options: PhantomOptions, taken: _Occupancy, rng: np.random.Generator) -> list[tuple[int, int]] | None:
    span_x, span_y = _free_span(members[0], options)
    if min(span_x, span_y) < 0:
        return None
    for _ in range(300):
        left, top = int(rng.integers(span_x + 1)), int(rng.integers(span_y + 1))
        if taken.overlap(members[0].solid, left, top):
            continue
        if len(members) == 1:
            return [(left, top)]
        beside = _beside(members[0], left, top, members[1], 0, rng.uniform(0.0, math.tau))
        limit_x, limit_y = _free_span(members[1], options)
        inside = 0 <= beside[0] <= limit_x and 0 <= beside[1] <= limit_y
        if inside and not taken.overlap(members[1].solid, *beside):
            return [(left, top), beside]
    return None


def _beside(still: _Patch, left: int, top: int, moved: _Patch, allowed: int, angle: float) -> tuple[int, int]:
    """Nearest left and top in a direction at which ``moved`` shares at most ``allowed`` pixels with ``still``."""
    (height, width), (h, w) = still.solid.shape, moved.solid.shape
    reach = max(height, width) + max(h, w)
    local = _Occupancy(width + 2 * reach, height + 2 * reach)
    local.stamp(still.solid, reach, reach)
    for step in range(reach):
        x, y = _polar(float(step), angle)
        dx, dy = round((width - w) / 2 + x), round((height - h) / 2 + y)
        if local.overlap(moved.solid, reach + dx, reach + dy) <= allowed:
            break
    return left + dx, top + dy


@dataclass(frozen=True)
class _Scene:
    """The smear while it is drawn.

    Attributes:
        density: (H, W, 3) optical density so far.
        guard: Pixels that nothing but a touching red cell may cover.
        red: Pixels under red cells.
    """

    density: Plane
    guard: _Occupancy
    red: _Occupancy

    def add(self, patch: _Patch, left: int, top: int) -> None:
        image, part = _clip(patch.solid.shape, left, top, self.density.shape[:2])
        self.density[image] += patch.density[part]


def _draw_scene(seed: int, options: PhantomOptions, whites: list[_Placed]) -> _Scene:
    scene = _Scene(
        np.zeros((options.height, options.width, 3), dtype=np.float32),
        _Occupancy(options.width, options.height),
        _Occupancy(options.width, options.height),
    )
    for item in whites:
        scene.add(item.patch, item.left, item.top)
        free_ring = 1 if item.touched else max(2, round(0.12 * options.cell_radius))
        scene.guard.stamp(item.patch.solid, item.left, item.top, free_ring)
    if options.red_cell_density > 0:
        _draw_red_cells(scene, whites, options, _stream(seed, _Purpose.RED_CELLS))
    _draw_platelets(scene, options, _stream(seed, _Purpose.PLATELETS))
    return scene


def _draw_red_cells(scene: _Scene, whites: list[_Placed], options: PhantomOptions, rng: np.random.Generator) -> None:
    for item in whites:
        if item.touched:
            _draw_touching(scene, item, whites, options, rng)
    misses = 0
    while misses < 25 and scene.red.bits.mean() < options.red_cell_density:
        patch = _red_patch(_red_radius(options, rng), rng)
        spot = _red_spot(scene, patch, options, rng)
        if spot is None:
            misses += 1
            continue
        scene.add(patch, *spot)
        scene.red.stamp(patch.solid, *spot)


def _red_radius(options: PhantomOptions, rng: np.random.Generator) -> float:
    return float(_RED_SCALE * options.cell_radius * math.exp(0.06 * np.clip(rng.standard_normal(), -2, 2)))


def _draw_touching(scene: _Scene, item: _Placed, whites: list[_Placed], options: PhantomOptions, rng: np.random.Generator) -> None:
    """One to three red cells that overlap the edge of a white cell, clear of the other white cells."""
    others = _Occupancy(options.width, options.height)
    for other in whites:
        if other is not item:
            others.stamp(other.patch.solid, other.left, other.top, 3)
    wanted = int(rng.integers(1, 4))
    for _ in range(24):
        patch = _red_patch(_red_radius(options, rng), rng)
        allowed = max(2, round(0.03 * np.count_nonzero(patch.solid)))
        spot = _beside(item.patch, item.left, item.top, patch, allowed, rng.uniform(0.0, math.tau))
        crowded = scene.red.overlap(patch.solid, *spot) > 0.1 * np.count_nonzero(patch.solid)
        if crowded or others.overlap(patch.solid, *spot) or not _mostly_inside(patch, spot, options):
            continue
        scene.add(patch, *spot)
        scene.red.stamp(patch.solid, *spot)
        wanted -= 1
        if not wanted:
            return


def _mostly_inside(patch: _Patch, spot: tuple[int, int], options: PhantomOptions) -> bool:
    height, width = patch.solid.shape
    x, y = spot[0] + width / 2, spot[1] + height / 2
    return bool(0 < x < options.width and 0 < y < options.height)


def _red_spot(scene: _Scene, patch: _Patch, options: PhantomOptions, rng: np.random.Generator) -> tuple[int, int] | None:
    height, width = patch.solid.shape
    allowed = 0.0 if rng.random() < 0.7 else rng.uniform(0.05, 0.35)
    for attempt in range(50):
        left = int(rng.integers(-width + 4, options.width - 4))
        top = int(rng.integers(-height + 4, options.height - 4))
        if scene.guard.overlap(patch.solid, left, top):
            continue
        visible = scene.red.visible(patch.solid, left, top)
        if scene.red.overlap(patch.solid, left, top) <= (allowed + 0.006 * attempt) * visible:
            return left, top
    return None


def _draw_platelets(scene: _Scene, options: PhantomOptions, rng: np.random.Generator) -> None:
    for _ in range(options.platelets):
        patch = _platelet_patch(options.cell_radius * rng.uniform(0.17, 0.30), rng)
        height, width = patch.solid.shape
        for attempt in range(60):
            left = int(rng.integers(0, max(options.width - width, 1)))
            top = int(rng.integers(0, max(options.height - height, 1)))
            on_red = attempt < 40 and scene.red.overlap(patch.solid, left, top)
            if not on_red and not scene.guard.overlap(patch.solid, left, top):
                scene.add(patch, left, top)
                scene.guard.stamp(patch.solid, left, top)
                break


# ---------------------------------------------------------------------------------------------------------
# Imaging, truth and caption.


def _render(seed: int, options: PhantomOptions, whites: list[_Placed]) -> Phantom:
    scene = _draw_scene(seed, options, whites)
    image = _expose(seed, options, scene.density)
    if options.label:
        _draw_caption(image, seed)
    mask = np.zeros((options.height, options.width), dtype=np.uint16)
    cells = tuple(_measure(item, mask, number) for number, item in enumerate(whites, start=1))
    image.setflags(write=False)
    mask.setflags(write=False)
    return Phantom(image, cells, mask, seed, options)


def _expose(seed: int, options: PhantomOptions, density: Plane) -> NDArray[np.uint8]:
    tint = np.array([1.0 + 0.2 * options.stain_hue, 1.0, 1.0 - 0.28 * options.stain_hue], dtype=np.float32)
    light = _light(options, _stream(seed, _Purpose.LIGHT))
    exposure = _f32(light * np.exp(-density * (options.stain * tint)))
    if options.blur_sigma > 0:
        exposure = _gauss(exposure, options.blur_sigma)
    if options.noise > 0:
        exposure += options.noise * _white_noise(exposure.shape, _stream(seed, _Purpose.NOISE))
    return np.clip(np.rint(exposure), 0, 255).astype(np.uint8)


def _light(options: PhantomOptions, rng: np.random.Generator) -> Plane:
    """(H, W, 3) light that would be seen without cells, 8-bit units."""
    x = np.linspace(-1.0, 1.0, options.width, dtype=np.float32)[None, :]
    y = np.linspace(-1.0, 1.0, options.height, dtype=np.float32)[:, None]
    dx, dy = _polar(0.5, rng.uniform(0.0, math.tau))
    ramp = (dx * x + dy * y) / (abs(dx) + abs(dy)) * 0.5 + 0.5
    corner = (x**2 + y**2) / 2.0
    coarse = _standard(_gauss(_white_noise((24, 32), rng), 4.0))
    cloud = cv2.resize(coarse, (options.width, options.height), interpolation=cv2.INTER_CUBIC)
    fall = options.light * (0.55 * ramp + 0.45 * corner + 0.04 * cloud)
    hue = np.array([-0.03, 0.005, 0.07], dtype=np.float32) * options.stain_hue
    lamp = np.asarray(_BACKGROUND, dtype=np.float32) * (1.0 + hue) * options.brightness
    chroma = np.array([1.0, 1.0, 1.12], dtype=np.float32)
    return _f32(lamp * (1.0 - fall[..., None] * chroma))


def _measure(item: _Placed, mask: NDArray[np.uint16], number: int) -> PhantomCell:
    rows, columns = np.nonzero(item.patch.solid)
    mask[rows + item.top, columns + item.left] = number
    assert item.patch.kind is not None
    return PhantomCell(
        center_x=float(columns.mean() + item.left),
        center_y=float(rows.mean() + item.top),
        radius=math.sqrt(rows.size / math.pi),
        kind=item.patch.kind,
        nucleus_radius=math.sqrt(np.count_nonzero(item.patch.nucleus) / math.pi),
    )


def _font_size(width: int, height: int) -> int:
    return max(10, round(0.018 * min(width, height)))


def _strip_height(options: PhantomOptions) -> int:
    """Rows along the lower edge that stay free of white cells, with or without a caption."""
    return round(1.6 * _font_size(options.width, options.height)) + 2


def _draw_caption(image: NDArray[np.uint8], seed: int) -> None:
    """Dark grey letters on a light grey plate in the lower left corner."""
    height, width = image.shape[:2]
    size = _font_size(width, height)
    short = min(width, height) < _SHORT_CAPTION_BELOW
    text = "PHANTOM" if short else f"PHANTOM - drawn, not a patient (seed {seed})"
    font = ImageFont.load_default(size)
    plate_width = min(math.ceil(font.getlength(text)) + size, width)
    plate = Image.new("L", (plate_width, round(1.6 * size)), 238)
    ImageDraw.Draw(plate).text((size / 2, round(0.8 * size)), text, fill=45, font=font, anchor="lm")
    grey = np.asarray(plate)
    image[height - grey.shape[0] :, : grey.shape[1]] = grey[..., None]
