"""The focus score and adaptive unsharpening as defined, in double precision with SciPy: the reference for ours."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from services.preprocessing.focus_kernel import solve_kernel
from services.preprocessing.unsharpening import AMOUNT, RADII, RADII_SIDE

Bytes = NDArray[np.uint8]
Double = NDArray[np.float64]
FLAT = 1e-12 / 255
"""Responses up to this are flat ground, as in ours."""
_TO_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
_WHITE = np.array([0.950456, 1.0, 1.088754])


@cache
def _kernels() -> tuple[Double, Double]:
    shape = 1.5
    scale = 2 * math.sqrt(math.gamma(1 / shape) / math.gamma(3 / shape))
    low_pass = np.exp(-(np.abs(np.arange(-16, 17) / scale) ** shape))
    half = solve_kernel()
    return low_pass / low_pass.sum(), np.array([*half[:0:-1], *half])


def plain_focus_score(rgb: Bytes) -> float:
    """FQPath score of uint8 (H, W, 3)."""
    low_pass, kernel = _kernels()
    gray = np.round(rgb @ np.array([0.2989360213, 0.5870430745, 0.1140209043])) / 255
    v, w = (ndimage.convolve1d(ndimage.convolve1d(gray, low_pass, axis=axis, mode="reflect"), kernel, axis=axis, mode="reflect") for axis in (1, 0))
    both = (v > FLAT) & (w > FLAT)
    a, b = v[both], w[both]
    values = np.concatenate([a, b])
    counts, edges = np.histogram(values, bins=50)
    cdf = np.cumsum(counts) / values.size
    m = max(int((cdf < cdf.min() + 0.95 * (cdf.max() - cdf.min())).sum()), 1)
    centres = (edges[:-1] + edges[1:]) / 2
    share = 0.09 + (1 - math.tanh(60 * (centres[m - 1] / centres[-1] - 0.095))) / 4
    feature = np.sort((np.sqrt(a) + np.sqrt(b)) ** 2)
    top = feature[feature.size - round(share * feature.size) :]
    return -math.log10(((top - top.mean()) ** 4).mean())


def plain_unsharp_mask(rgb: Bytes, sigma: float) -> Bytes:
    """Unsharp mask of L* with the paper's amount."""
    lab = _to_lab(rgb)
    reach = math.ceil(2 * sigma)
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    blurred = lab[..., 0]
    for axis in (0, 1):
        blurred = ndimage.convolve1d(blurred, weights / weights.sum(), axis=axis, mode="nearest")
    lab[..., 0] = np.clip(lab[..., 0] + AMOUNT * (lab[..., 0] - blurred), 0, 100)
    return _to_rgb(lab)


def plain_radius(rgb: Bytes, threshold: float) -> int:
    """Radius that the rule chooses: 0 where nothing is to be sharpened or no radius suffices."""
    if plain_focus_score(rgb) <= threshold:
        return 0
    radii = (r for r in RADII if plain_focus_score(plain_unsharp_mask(rgb, r * rgb.shape[0] / RADII_SIDE)) <= threshold)
    return next(radii, 0)


def _to_lab(rgb: Bytes) -> Double:
    value = rgb / 255.0
    linear = np.where(value > 0.04045, ((value + 0.055) / 1.055) ** 2.4, value / 12.92)
    xyz = linear @ _TO_XYZ.T / _WHITE
    x, y, z = np.moveaxis(np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def _to_rgb(lab: Double) -> Bytes:
    y = (lab[..., 0] + 16) / 116
    root = np.stack([y + lab[..., 1] / 500, y, y - lab[..., 2] / 200], axis=-1)
    xyz = np.where(root > 0.206893, root**3, (root - 16 / 116) / 7.787) * _WHITE
    linear = xyz @ np.linalg.inv(_TO_XYZ).T
    value = np.where(linear > 0.0031308, 1.055 * np.maximum(linear, 0) ** (1 / 2.4) - 0.055, 12.92 * linear)
    return np.round(np.clip(value, 0, 1) * 255).astype(np.uint8)
