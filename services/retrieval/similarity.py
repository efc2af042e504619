"""Where two cells resemble: the exact decomposition of their similarity over patches.

The embedding is the mean of the patch embeddings, so the cosine similarity of two cells is the mean over the patches
of the query of ``p . n`` (p a patch embedding of the query divided by the query's length, n the unit embedding of the
neighbour), and likewise for the neighbour. Source: DSS-XAI (Genovese et al., Image and Vision Computing 151, 2024),
without its spatial maximum, which breaks the identity for networks that pool by the mean.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]


def similarity_map(patches: Float, other: Float) -> Float:
    """Contribution of every patch to the similarity with another cell.

    Args:
        patches: float32 (h, w, D), divided by the length of their mean.
        other: float32 (D,), unit embedding of the other cell.

    Returns:
        float32 (h, w); its mean is the cosine similarity of the two cells.
    """
    return np.asarray(patches @ other, np.float32)


def normalise_patches(patches: Float) -> Float:
    """Divide patch embeddings (h, w, D) by the length of their mean, so that the mean has unit length."""
    length = float(np.linalg.norm(patches.mean(axis=(0, 1))))
    return np.asarray(patches / max(length, 1e-12), np.float32)


def quantise(contributions: Float) -> NDArray[np.uint8]:
    """Heat map uint8 (h, w): negative contributions 0, the largest 255."""
    positive = np.maximum(contributions, 0.0)
    return np.asarray(np.rint(positive * (255.0 / max(float(positive.max()), 1e-12))), np.uint8)
