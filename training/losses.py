"""Losses that plain torch does not have."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


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
