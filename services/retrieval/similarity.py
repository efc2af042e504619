"""Where two cells resemble each other: the exact decomposition of their similarity over the places of the feature map.

The embedding is the mean of the place embeddings, so the cosine similarity of two cells is the mean over the places
of the query of ``p . n`` (p a place embedding of the query divided by the query's length, n the unit embedding of the
neighbour), and likewise for the neighbour. Source: DSS-XAI (Genovese et al., Image and Vision Computing 151, 2024),
without its spatial maximum, which breaks the identity for networks that pool by the mean.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]


def similarity_map(places: Float, other: Float) -> Float:
    """Contribution of every place to the similarity with another cell.

    Args:
        places: float32 (h, w, D), divided by the length of their mean.
        other: float32 (D,), unit embedding of the other cell.

    Returns:
        float32 (h, w); its mean is the cosine similarity of the two cells.
    """
    return np.asarray(places @ other, np.float32)


def grad_cam(places: Float, other: Float) -> Float:
    """Gradient-weighted activations of the similarity with another cell, before they are rectified, in closed form.

    For a network that ends in a linear map of its features F and pools by the mean, ``sum_c (d s / d F_c) F_c`` at a place is
    ``p . (n - s q) / (h w)``: the part of its embedding that moves the query towards the neighbour, along the sphere of unit embeddings. The
    factor ``1 / (h w)`` is left out. Source: methods of DSS-XAI (rectified Grad-CAM), without its implementation by automatic differentiation.

    Args:
        places: float32 (h, w, D), divided by the length of their mean.
        other: float32 (D,), unit embedding of the other cell.

    Returns:
        float32 (h, w); its mean is 0 up to rounding, because a step along the embedding itself does not change the cosine.
    """
    own = places.mean(axis=(0, 1))
    return np.asarray(places @ (other - float(own @ other) * own), np.float32)


def place_similarities(places: Float, others: Float) -> Float:
    """How much each place of one cell resembles each place of another.

    Args:
        places: float32 (h, w, D), divided by the length of their mean.
        others: float32 (i, j, D), likewise.

    Returns:
        float32 (h, w, i, j); the mean over all is the cosine similarity of the two cells, over (i, j) the similarity map of the first, over
        (h, w) that of the second.
    """
    return np.asarray(np.einsum("hwd,ijd->hwij", places, others, optimize=True), np.float32)


def normalise_places(places: Float) -> Float:
    """Divide place embeddings (h, w, D) by the length of their mean, so that the mean has unit length."""
    length = float(np.linalg.norm(places.mean(axis=(0, 1))))
    return np.asarray(places / max(length, 1e-12), np.float32)


def quantise(contributions: Float) -> NDArray[np.uint8]:
    """Heat map uint8 of the same shape: negative contributions 0, the largest of all 255."""
    positive = np.maximum(contributions, 0.0)
    return np.asarray(np.rint(positive * (255.0 / max(float(positive.max()), 1e-12))), np.uint8)
