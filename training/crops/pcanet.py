"""A one-stage PCANet: features of grey images from the principal components of their windows.

Source: Chan et al., IEEE TIP 2015, as adaptive unsharpening uses it to choose its threshold (Genovese et al., ICASSP 2021).
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
WINDOW: Final = 15
BLOCK: Final = 23
RETAINED: Final = 0.92
MAX_FILTERS: Final = 11
"""More filters would make histograms of more than 2048 bins; the program's own setting, reached by none of its data."""


def filters(images: Float) -> Float:
    """Principal windows, float32 (L, 15, 15), the strongest first; L is the count whose retained variance is nearest to 0.92.

    Args:
        images: float32 (N, H, W), sides at least 15.
    """
    covariance = np.zeros((WINDOW**2, WINDOW**2))
    count = 0
    for image in images:
        windows = np.lib.stride_tricks.sliding_window_view(image, (WINDOW, WINDOW)).reshape(-1, WINDOW**2)
        centred = windows - windows.mean(axis=1, keepdims=True)
        covariance += centred.T @ centred
        count += len(centred)
    values, vectors = np.linalg.eigh(covariance / count)
    retained = np.cumsum(values[::-1]) / values.sum()
    first = int(np.argmax(retained >= RETAINED)) + 1
    near = min((first, first + 1), key=lambda n: abs(retained[min(n, len(retained)) - 1] - RETAINED))
    chosen = vectors[:, ::-1][:, : min(near, MAX_FILTERS)].T
    return np.ascontiguousarray(chosen.reshape(-1, WINDOW, WINDOW), np.float32)


def features(images: Float, kernels: Float) -> Float:
    """Block histograms of the binarised responses, float32 (N, blocks * 2^L).

    Args:
        images: float32 (N, H, W).
        kernels: from ``filters``.
    """
    # A window without its mean, times a filter, is the window times the filter without its mean.
    centred = kernels - kernels.mean(axis=(1, 2), keepdims=True)
    return np.stack([_histograms(image, centred) for image in images])


def _histograms(image: Float, kernels: Float) -> Float:
    bins = 1 << len(kernels)
    codes = np.zeros(image.shape, np.int64)
    for kernel in kernels:
        codes = 2 * codes + (cv2.filter2D(image, cv2.CV_32F, kernel, borderType=cv2.BORDER_CONSTANT) > 0)
    rows, columns = image.shape[0] // BLOCK, image.shape[1] // BLOCK
    blocks = codes[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK).transpose(0, 2, 1, 3).reshape(rows * columns, -1)
    counts = np.stack([np.bincount(block, minlength=bins) for block in blocks])
    return (counts * (bins / counts.sum(axis=1, keepdims=True))).astype(np.float32).ravel()


def nearest_neighbour_accuracy(vectors: Float, labels: NDArray[np.int64], groups: NDArray[np.str_]) -> float:
    """Share of vectors (N, D) whose nearest one of another group has the same label.

    Raises:
        ValueError: there is only one group.
    """
    if len(np.unique(groups)) < 2:
        raise ValueError("The nearest neighbour of another group needs at least two groups.")
    squares = np.einsum("ij,ij->i", vectors, vectors)
    distances = squares[:, None] + squares[None, :] - 2.0 * vectors @ vectors.T
    distances[groups[:, None] == groups[None, :]] = np.inf
    return float(np.mean(labels[distances.argmin(axis=1)] == labels))
