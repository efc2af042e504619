"""Losses of the six systems that plain torch does not have, and their class weights."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

MIN_COUNT: Final = 10
"""A class counts at least this often when its weight is taken (HistoTNet)."""


def inverse_count_weights(labels: NDArray[np.int8], *, mask_empty: bool = True) -> NDArray[np.float32]:
    """Class weights N / max(count, 10), float32 (K,).

    Args:
        labels: int8 (N, K), 0 or 1.
        mask_empty: give classes without a positive the weight 0; the original program gives them N / 10, the largest of all.
    """
    counts = labels.sum(axis=0, dtype=np.int64)
    weights = len(labels) / np.maximum(counts, MIN_COUNT)
    return np.where((counts == 0) & mask_empty, 0.0, weights).astype(np.float32)


def positive_weights(labels: NDArray[np.int8]) -> NDArray[np.float32]:
    """Negatives per positive of each class, float32 (K,); 1 for a class without positives.

    Args:
        labels: int8 (N, K), 0 or 1.
    """
    counts = labels.sum(axis=0, dtype=np.int64)
    return np.where(counts == 0, 1.0, (len(labels) - counts) / np.maximum(counts, 1)).astype(np.float32)


def multi_label_soft_margin(logits: Tensor, labels: Tensor, weights: Tensor, positive: Tensor | None = None) -> Tensor:
    """Mean over images and classes of ``w_c BCE(sigmoid(z_c), y_c)`` (HistoTNet's pretraining).

    Args:
        logits: (N, K).
        labels: (N, K), 0 or 1.
        weights: (K,).
        positive: (K,), further factor of the term of positive labels (ALL-IDB Patches); ones if None.
    """
    return functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), weights.expand_as(logits), pos_weight=positive)


def weighted_cross_entropy(logits: Tensor, classes: Tensor, weights: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean of the cross-entropy of each image times its weight.

    Args:
        logits: (N, K).
        classes: (N,) integers.
        weights: (N,), of each image.
        label_smoothing: probability given to all classes alike.
    """
    return (functional.cross_entropy(logits, classes, reduction="none", label_smoothing=label_smoothing) * weights).mean()


def supervised_contrastive(embeddings: Tensor, classes: Tensor, temperature: float = 0.1) -> Tensor:
    """Supervised contrastive loss (Khosla et al., NeurIPS 2020, L_out).

    Args:
        embeddings: (N, D), any norm; compared by cosine.
        classes: (N,) integers; cells of one class attract each other.
        temperature: softmax temperature.

    Returns:
        Mean over cells that have at least one other of their class in the batch; 0 where none has.
    """
    unit = functional.normalize(embeddings, dim=1)
    similarity = unit @ unit.T / temperature
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    log_probability = similarity.masked_fill(itself, float("-inf")).log_softmax(dim=1).masked_fill(itself, 0.0)
    same = (classes[:, None] == classes[None, :]) & ~itself
    partners = same.sum(dim=1)
    if not bool((partners > 0).any()):
        return embeddings.sum() * 0.0
    per_cell = -(log_probability * same).sum(dim=1) / partners.clamp_min(1)
    return per_cell[partners > 0].mean()


def triplet_margin(embeddings: Tensor, classes: Tensor, margin: float = 0.05) -> Tensor:
    """Triplet loss over all triplets of a batch, as ``TripletMarginLoss`` of pytorch-metric-learning takes it by default (DSS-XAI).

    A triplet is an anchor, another cell of its class and a cell of another class; it costs ``max(0, d(a, p) - d(a, n) + margin)``.

    Args:
        embeddings: (N, D), any norm; brought to length 1 and compared by Euclidean distance, 0 to 2.
        classes: (N,) integers.
        margin: by how much a cell of another class shall be farther than one of the own.

    Returns:
        Mean over the triplets that cost something; 0 where none does. Takes memory for N^2 D and at most N^3 numbers.
    """
    precise = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))  # bfloat16 is too coarse for the margin
    unit = functional.normalize(precise, dim=1)
    distances = torch.linalg.vector_norm(unit[:, None] - unit[None, :], dim=2)
    same = classes[:, None] == classes[None, :]
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    anchors, positives = torch.nonzero(same & ~itself, as_tuple=True)
    costs = functional.relu(distances[anchors, positives][:, None] - distances[anchors] + margin).masked_fill(same[anchors], 0.0)
    return costs.sum() / (costs > 0).sum().clamp_min(1)
