"""The light of the background: the light that would reach the camera where nothing absorbs it.

On a field it is a smooth surface, fitted to all of the image: a polynomial in log intensity, by quantile regression, so
that the cells, which only darken, do not pull it down and no tile without background leaves a dent.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Double = NDArray[np.float64]
Bytes = NDArray[np.uint8]
Mask = NDArray[np.bool_]

BACKGROUND_PERCENTILE: Final = 90.0
"""Share of the pixels, in percent, that the light exceeds; the others are cells, or noise of the background."""
MIN_UNEVEN_SIDE: Final = 384
"""Images whose shorter side has fewer px are lit evenly: a crop, in which one cell may cover most of the image."""
MIN_FIELD_SIDE: Final = 512
"""Images whose longer side has more px are fields; smaller ones may still be a crop around one large cell."""
SMOOTH_DEGREE: Final = 2
"""Total degree of the polynomial that describes gradient and vignetting."""
FINE_DEGREE: Final = 4
"""Total degree of the one that describes coloured rings and an off-centre lamp, on fields only."""
MAX_FINE_CHANGE: Final = 0.25
"""How far, in log intensity, the finer surface may leave the smoother one: it must not follow a clump of cells."""
SAMPLE_SIDE: Final = 80
"""Samples along the longer side to which the surface is fitted."""
_GRID: Final = 64
"""Grid points per axis at which the surface is evaluated; between them it is nearly straight."""
_ITERATIONS: Final = 6
_LEAST_RESIDUAL: Final = 0.01
_LEAST_SAMPLES: Final = 400


def background_light(rgb: Bytes, *, is_field: bool = False, without: Mask | None = None) -> Float:
    """Estimate the light that reaches the camera where nothing absorbs it.

    Args:
        rgb: uint8 (H, W, 3).
        is_field: known to show many cells, however small it is.
        without: bool (H, W), pixels that are no field.

    Returns:
        float32 (H, W, 3) in 1..255: constant for crops (see ``MIN_UNEVEN_SIDE``), for larger images a smooth surface.
    """
    height, width = rgb.shape[:2]
    if min(height, width) < MIN_UNEVEN_SIDE and not is_field:
        return np.broadcast_to(_overall_light(rgb), rgb.shape)
    samples = np.log(_samples(rgb).astype(np.float32) + 1.0)
    kept = None if without is None else _kept(without, samples.shape[:2])
    surface = _surface(samples, SMOOTH_DEGREE, kept)
    if max(height, width) > MIN_FIELD_SIDE:
        surface = np.clip(_surface(samples, FINE_DEGREE, kept), surface - MAX_FINE_CHANGE, surface + MAX_FINE_CHANGE)
    light = np.exp(surface).astype(np.float32) - 1.0
    fine = np.asarray(cv2.resize(light, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    return np.clip(fine, 1.0, 255.0, out=fine)


def _overall_light(rgb: Bytes) -> Float:
    height, width = rgb.shape[:2]
    samples = rgb[:: max(1, height // 256), :: max(1, width // 256)].reshape(-1, 3)
    return np.maximum(np.percentile(samples, BACKGROUND_PERCENTILE, axis=0), 1.0).astype(np.float32)


def _samples(rgb: Bytes) -> Bytes:
    """Every other pixel of a reduced copy: a little averaged against noise, not so much that gaps between cells close."""
    height, width = rgb.shape[:2]
    factor = max(1, round(max(height, width) / (2 * SAMPLE_SIDE)))
    small = cv2.resize(rgb, (max(1, width // factor), max(1, height // factor)), interpolation=cv2.INTER_AREA)
    return np.asarray(small[::2, ::2], np.uint8)


def _kept(without: Mask, shape: tuple[int, ...]) -> Mask | None:
    """Samples that show field, bool (h * w); None where they are too few for a surface, so that all are taken."""
    shares = cv2.resize(without.astype(np.float32), (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
    kept = np.asarray(shares.ravel() == 0.0, bool)
    return kept if np.count_nonzero(kept) >= _LEAST_SAMPLES else None


def _surface(samples: Float, degree: int, kept: Mask | None) -> Double:
    """Fit a polynomial to the upper quantile of the samples, or of those that are kept; evaluated on a grid, float64 (_GRID, _GRID, 3)."""
    terms, products = _design(samples.shape[0], samples.shape[1], degree)
    values = samples.reshape(-1, 3)
    if kept is not None:
        terms, products, values = terms[:, kept], products[:, kept], values[kept]
    coefficients = [_quantile_regression(terms, products, values[:, c]) for c in range(3)]
    grid = _terms(_GRID, _GRID, degree)
    return np.asarray(np.einsum("kn,ck->nc", grid, np.stack(coefficients)), np.float64).reshape(_GRID, _GRID, 3)


@lru_cache(maxsize=8)
def _design(height: int, width: int, degree: int) -> tuple[Float, Float]:
    """Terms, float32 (K, height * width), and the products of every two of them, (K (K + 1) / 2, height * width)."""
    terms = _terms(height, width, degree).astype(np.float32)
    first, second = _upper(len(terms))
    return terms, terms[first] * terms[second]


@lru_cache(maxsize=4)
def _upper(count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of every two of ``count`` terms."""
    return np.triu_indices(count)


@lru_cache(maxsize=4)
def _terms(height: int, width: int, degree: int) -> Double:
    """Products of Legendre polynomials up to a total degree at pixel centres, float64 (K, height * width)."""
    rows = np.polynomial.legendre.legvander((2 * np.arange(height) + 1) / height - 1, degree)
    columns = np.polynomial.legendre.legvander((2 * np.arange(width) + 1) / width - 1, degree)
    pairs = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    return np.stack([np.outer(rows[:, i], columns[:, j]).ravel() for i, j in pairs])


def _quantile_regression(terms: Float, products: Float, values: Float) -> Double:
    """Coefficients of the surface below which ``BACKGROUND_PERCENTILE`` of the values lie, by reweighted least squares.

    Sums are taken by ``einsum``: unlike BLAS it adds in one thread and in one order, so that no result depends on the number of threads.
    """
    share = BACKGROUND_PERCENTILE / 100
    count = len(terms)
    rows, columns = _upper(count)
    coefficients: Double = np.zeros(count)
    coefficients[0] = np.quantile(values, share)
    for _ in range(_ITERATIONS):
        residuals = values - np.einsum("k,kn->n", coefficients.astype(np.float32), terms)
        weights = np.where(residuals > 0, np.float32(share), np.float32(1 - share)) / np.maximum(np.abs(residuals), np.float32(_LEAST_RESIDUAL))
        normal = np.zeros((count, count))
        normal[rows, columns] = normal[columns, rows] = np.einsum("pn,n->p", products, weights)
        normal[np.diag_indices(count)] += 1e-6 * np.trace(normal)
        coefficients = np.asarray(np.linalg.solve(normal, np.einsum("kn,n->k", terms, weights * values)), np.float64)
    return coefficients
