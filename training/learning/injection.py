"""Class injection: classes beside blast and normal. A network learns that there is no cell, or that blasts are of several kinds.

Source: DSS-XAI (Genovese et al., Image and Vision Computing 151, 2024), where patches without a nucleated cell are a class of their own, and
lymphoblasts are split in two. There the patches come from other photographs than the cells, so that the photograph may tell the class; here they are
background of the very images that show the cells.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2

from services.common.cell_classes import BLAST_COLUMN, NORMAL_COLUMN, NOTHING_COLUMN
from training.crops.packs import Pack
from training.datasets.splits import Split
from training.errors import RecipeError
from training.learning.classification_task import Samples
from training.recipes.config import Injection

"""Columns of the classes; clusters of blasts beyond the first follow after them."""
Float = NDArray[np.float32]
Flags = NDArray[np.bool_]


def class_count(injection: Injection) -> int:
    """Classes that the network tells apart while it learns."""
    return 2 + (injection.nothing > 0) + injection.clusters - 1


def merged_classes(injection: Injection) -> tuple[tuple[int, ...], ...]:
    """Columns that form one class in the output of the network: normal, blast and, where it was injected, nothing."""
    blasts = (BLAST_COLUMN, *range(NOTHING_COLUMN + 1, NOTHING_COLUMN + injection.clusters))
    return ((NORMAL_COLUMN,), blasts, *(((NOTHING_COLUMN,),) if injection.nothing else ()))


def inject_nothing(samples: Samples, split: Split, nothing: Pack, allowed: Flags, share: float, seed: int) -> tuple[Samples, Split]:
    """Add crops without a cell to the training part.

    Args:
        samples: cells with labels (N, 2), normal and blast.
        split: their split.
        nothing: crops without a cell.
        allowed: bool (len(nothing),), which of them this split may learn from.
        share: how many, in shares of the training cells.
        seed: decides which.

    Returns:
        Samples with labels (N + M, 3), the new ones last, and the split with them in its training part; validation and test are as before.

    Raises:
        RecipeError: there are too few.
    """
    training = np.flatnonzero(allowed)
    wanted = round(share * len(split.train))
    if len(training) < wanted or not wanted:
        raise RecipeError(f"{wanted} crops without a cell are asked for, and there are {len(training)} to train on. Change injection.nothing.")
    chosen = np.random.default_rng((seed, NOTHING_COLUMN)).permutation(training)[:wanted]
    count, kinds = len(samples), int(samples.fine.max()) + 1
    labels = np.zeros((count + wanted, NOTHING_COLUMN + 1), np.int8)
    labels[:count, : samples.labels.shape[1]] = samples.labels
    labels[count:, NOTHING_COLUMN] = 1
    return (
        Samples(
            np.concatenate([samples.pixels, nothing.pixels[chosen]]),
            labels,
            np.concatenate([samples.fine, np.full(wanted, kinds, np.int64)]),
            np.concatenate([samples.groups, nothing.groups[chosen]]),
        ),
        Split(np.concatenate([split.train, count + np.arange(wanted)]), split.validation, split.test),
    )


def split_blasts(samples: Samples, training: NDArray[np.int64], embeddings: Float, clusters: int, seed: int) -> Samples:
    """Split the blasts of the training part into clusters of their embeddings; the others keep the first cluster.

    Args:
        samples: with labels (N, 3).
        training: indices of the training part.
        embeddings: float32 (len(training), D) by a network that learned from the same part.
        clusters: how many.
        seed: of the k-means.

    Returns:
        Samples with labels (N, 2 + clusters), and as many more fine classes.

    Raises:
        RecipeError: a cluster is empty: there are fewer kinds of blasts than that.
    """
    blasts = training[samples.labels[training, BLAST_COLUMN] == 1]
    unit = embeddings[samples.labels[training, BLAST_COLUMN] == 1].astype(np.float64)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    _, cluster = kmeans2(unit, clusters, minit="++", seed=np.random.default_rng(seed))
    if len(np.unique(cluster)) < clusters:
        raise RecipeError(f"The blasts do not fall into {clusters} clusters; lower injection.clusters.")
    labels = np.concatenate([samples.labels, np.zeros((len(samples), clusters - 1), np.int8)], axis=1)
    fine = samples.fine.copy()
    kinds = int(fine.max()) + 1
    for k in range(1, clusters):
        of_cluster = blasts[cluster == k]
        labels[of_cluster, BLAST_COLUMN], labels[of_cluster, NOTHING_COLUMN + k] = 0, 1
        fine[of_cluster] = kinds + k - 1
    return Samples(samples.pixels, labels, fine, samples.groups)
