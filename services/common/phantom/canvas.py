"""The window in which one cell is drawn, and the drawn cell. Lengths are in units of the cell radius."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from services.common.phantom.options import CellKind
from services.common.phantom.planes import Bitmap, Plane, disc, f32, gauss, rotate, standard, white_noise

_WINDOW_REACH = 1.45


@dataclass(frozen=True)
class Canvas:
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
        return f32(np.clip(0.5 - distance * (self.radius / soft), 0.0, 1.0))

    def noise(self, scale: float) -> Plane:
        """Smooth noise of mean 0 and variance 1 with features of size ``scale``."""
        return standard(self._blur(white_noise(self.u.shape, self.rng), scale))

    def band(self, fine: float, coarse: float) -> Plane:
        """Band-pass noise of mean 0 and variance 1 with features between two sizes."""
        white = white_noise(self.u.shape, self.rng)
        return standard(self._blur(white, fine) - self._blur(white, coarse))

    def dots(self, count: float, size: float) -> Plane:
        """Round grains of radius ``size`` and strength 0..1, ``count`` per unit area."""
        chance = count / self.radius**2
        seeds = self.rng.random(self.u.shape) < chance
        strength = f32(seeds * self.rng.uniform(0.5, 1.1, self.u.shape))
        return f32(np.minimum(cv2.filter2D(strength, -1, disc(size * self.radius)), 1.0))

    def _blur(self, plane: Plane, scale: float) -> Plane:
        return gauss(plane, max(scale * self.radius, 0.6))


@dataclass(frozen=True)
class DrawnCell:
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


def canvas_for(radius: float, rng: np.random.Generator) -> Canvas:
    """The window around a cell of this radius in pixels, its centre off the pixel grid by up to half a pixel."""
    half = math.ceil(radius * _WINDOW_REACH) + 2
    axis = np.arange(-half, half + 1)
    shift_x, shift_y = rng.uniform(-0.5, 0.5, 2)
    u, v = np.meshgrid((axis - shift_x) / radius, (axis - shift_y) / radius)
    return Canvas(f32(u), f32(v), radius, rng)


def trim(cell: DrawnCell, margin: int = 2) -> DrawnCell:
    """Cut a drawn cell to its pixels and a margin in pixels."""
    rows = np.flatnonzero(cell.solid.any(axis=1))
    columns = np.flatnonzero(cell.solid.any(axis=0))
    box = (
        slice(max(rows[0] - margin, 0), rows[-1] + margin + 1),
        slice(max(columns[0] - margin, 0), columns[-1] + margin + 1),
    )
    return DrawnCell(cell.density[box], cell.solid[box], cell.nucleus[box], cell.kind)


def outline(canvas: Canvas, bumps: float) -> Plane:
    """Distance to a closed outline of low Fourier order whose area is that of the unit disc."""
    theta = np.arctan2(canvas.v, canvas.u)
    reach = np.ones_like(theta)
    power = 1.0
    for order in range(2, 8):
        amplitude = float(np.clip(canvas.rng.normal(0.0, bumps * (2.0 / order) ** 1.5), -2 * bumps, 2 * bumps))
        reach += amplitude * np.cos(order * theta + canvas.rng.uniform(0.0, math.tau))
        power += amplitude**2 / 2.0
    reach = np.clip(reach / math.sqrt(power), 0.65, 1.35)
    return f32(np.hypot(canvas.u, canvas.v) - reach)


def turned(canvas: Canvas, x: float, y: float, angle: float) -> tuple[Plane, Plane]:
    """Axes with their origin at (x, y), turned by an angle."""
    return rotate(f32(canvas.u - x), f32(canvas.v - y), angle)


def away(canvas: Canvas, x: float, y: float) -> Plane:
    """Distance to the point (x, y)."""
    return f32(np.hypot(canvas.u - x, canvas.v - y))
