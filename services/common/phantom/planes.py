"""Planes of numbers that drawings are made of: noise, blur, and signed distances to shapes, negative inside.

Lengths of shapes are in units of the cell radius; angles in radians.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]
Bitmap = NDArray[np.bool_]
Rgb = tuple[float, float, float]

BACKGROUND: Rgb = (250.0, 229.0, 209.0)
"""Colour of the glass where nothing lies, 8-bit units."""


def f32(values: NDArray[np.generic]) -> Plane:
    """The same values as float32."""
    return np.asarray(values, dtype=np.float32)


def density_of(rgb: Rgb) -> Plane:
    """(3,) optical density that turns the background into ``rgb``."""
    return f32(-np.log(np.asarray(rgb) / np.asarray(BACKGROUND)))


def lerp(first: Plane, second: Plane, share: Plane) -> Plane:
    """From ``first`` (share 0) to ``second`` (share 1); the share has no channels."""
    return f32(first + (second - first) * share[..., None])


def white_noise(shape: tuple[int, ...], rng: np.random.Generator) -> Plane:
    """Independent normal numbers, mean 0, variance 1."""
    return rng.standard_normal(shape, dtype=np.float32)


def standard(plane: Plane) -> Plane:
    """Shift and scale a plane to mean 0 and variance 1."""
    return f32((plane - plane.mean()) / (plane.std() + 1e-12))


def gauss(plane: Plane, sigma: float) -> Plane:
    """Gaussian blur; sigma in pixels."""
    return f32(cv2.GaussianBlur(plane, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101))


def disc(radius: float) -> Plane:
    """Kernel of a filled disc; radius in pixels."""
    half = math.ceil(radius) + 1
    axis = np.arange(-half, half + 1)
    return f32(np.clip(radius + 0.5 - np.hypot(*np.meshgrid(axis, axis)), 0.0, 1.0))


def polar(length: float, angle: float) -> tuple[float, float]:
    """The x and y of a length in a direction."""
    return length * math.cos(angle), length * math.sin(angle)


def rotate(u: Plane, v: Plane, angle: float) -> tuple[Plane, Plane]:
    """Turn coordinates by an angle."""
    c, s = math.cos(angle), math.sin(angle)
    return f32(c * u + s * v), f32(c * v - s * u)


def ellipse(axes: tuple[Plane, Plane], a: float, b: float) -> Plane:
    """Approximate distance to an ellipse with half axes a and b."""
    level = np.maximum(np.hypot(axes[0] / a, axes[1] / b), 1e-4)
    slope = np.hypot(axes[0] / a**2, axes[1] / b**2)
    return f32(level * (level - 1.0) / np.maximum(slope, 1e-6))


def segment(u: Plane, v: Plane, start: tuple[float, float], end: tuple[float, float], thickness: float) -> Plane:
    """Distance to a line segment of some thickness."""
    du, dv = end[0] - start[0], end[1] - start[1]
    along = np.clip(((u - start[0]) * du + (v - start[1]) * dv) / max(du**2 + dv**2, 1e-9), 0.0, 1.0)
    return f32(np.hypot(u - start[0] - along * du, v - start[1] - along * dv) - thickness)


def wedge(u: Plane, v: Plane, tip: tuple[float, float], thickness: float, slope: float) -> Plane:
    """Distance to a notch with a round tip that opens along u."""
    ahead = np.maximum(u - tip[0], 0.0)
    behind = np.minimum(u - tip[0], 0.0)
    return f32(np.hypot(behind, v - tip[1]) - thickness - slope * ahead)


def smooth_min(first: Plane, second: Plane, width: float) -> Plane:
    """Minimum of two distances with a rounded seam of some width."""
    share = np.maximum(width - np.abs(first - second), 0.0) / width
    return f32(np.minimum(first, second) - share**2 * width / 4.0)


def smooth_max(first: Plane, second: Plane, width: float) -> Plane:
    """Maximum of two distances with a rounded seam of some width."""
    return f32(-smooth_min(f32(-first), f32(-second), width))
