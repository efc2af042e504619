"""Nearest known cells and their vote (system 6: decision by k nearest neighbours in a learned metric)."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]

_NEAR_ZERO: Final = 1e-3


def unit(vectors: Float) -> Float:
    """Scale vectors (..., D) to unit length; zero vectors stay zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)


def vote(distances: Float, is_blast: NDArray[np.bool_]) -> Float:
    """Distance-weighted share of blasts.

    Args:
        distances: float32 (N, k).
        is_blast: bool (N, k), of the same neighbours.

    Returns:
        float32 (N,) in 0..1; weights 1 / distance, so that a tie goes to the nearer side.
    """
    weights = 1.0 / np.maximum(distances, _NEAR_ZERO)
    return np.asarray((weights * is_blast).sum(axis=1) / weights.sum(axis=1), np.float32)


def legacy_vote(labels: NDArray[Any]) -> NDArray[Any]:
    """The vote of the paper (DSS), for comparison only: one pass of Boyer-Moore, nearest first, never verified.

    A label that more than half of the neighbours carry wins. Where there is none, the order decides: of three different labels that of the farthest
    neighbour wins; ``vote`` follows the nearest.

    Args:
        labels: (N, k) of anything that can be compared, nearest neighbour first, k >= 1; the paper has k = 3.

    Returns:
        (N,) the label that each row elects.
    """
    elected, lead = labels[:, 0].copy(), np.zeros(len(labels), np.int64)
    for column in labels.T:
        elected = np.where(lead == 0, column, elected)
        lead += np.where(column == elected, 1, -1)
    return elected


def distance_quantile(distance: float, calibration: NDArray[np.float64]) -> float:
    """Quantile 0..1 of a distance among evenly spaced calibration quantiles, ascending."""
    return float(np.interp(distance, calibration, np.linspace(0.0, 1.0, len(calibration))))


def project(embeddings: Float, mean: Float, projection: Float) -> Float:
    """Latent positions float32 (N, 2) of unit embeddings (N, D)."""
    return np.asarray((embeddings - mean) @ projection.T, np.float32)
