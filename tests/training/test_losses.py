"""Tests of the supervised contrastive loss."""

from __future__ import annotations

import math

import pytest
import torch

from training.losses import supervised_contrastive


def test_by_hand() -> None:
    # Two equal cells of one class and an orthogonal one of another; the third has no partner and is left out.
    embeddings = torch.tensor([[2.0, 0.0], [5.0, 0.0], [0.0, 1.0]])
    loss = supervised_contrastive(embeddings, torch.tensor([0, 0, 1]), temperature=0.5)
    assert loss.item() == pytest.approx(-math.log(math.exp(2) / (math.exp(2) + 1)), rel=1e-6)


def test_against_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(9, 5, generator=generator, dtype=torch.float64)
    classes = [0, 1, 2, 0, 1, 0, 2, 0, 3]
    unit = [row / row.norm() for row in embeddings]
    terms = []
    for i in range(9):
        partners = [j for j in range(9) if j != i and classes[j] == classes[i]]
        total = sum(math.exp(float(unit[i] @ unit[a]) / 0.1) for a in range(9) if a != i)
        if partners:
            terms.append(-sum(math.log(math.exp(float(unit[i] @ unit[p]) / 0.1) / total) for p in partners) / len(partners))
    assert len(terms) == 8
    assert supervised_contrastive(embeddings, torch.tensor(classes)).item() == pytest.approx(sum(terms) / 8, rel=1e-9)


def test_norms_do_not_matter() -> None:
    embeddings, classes = torch.randn(6, 4, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 0, 1, 1, 2, 2])
    scaled = embeddings * torch.tensor([[1.0], [10.0], [0.1], [3.0], [7.0], [2.0]])
    assert supervised_contrastive(scaled, classes).item() == pytest.approx(supervised_contrastive(embeddings, classes).item(), rel=1e-5)


def test_without_any_partner_the_loss_is_zero_and_can_be_differentiated() -> None:
    embeddings = torch.randn(3, 4, requires_grad=True)
    loss = supervised_contrastive(embeddings, torch.tensor([0, 1, 2]))
    loss.backward()
    assert loss.item() == 0.0
    assert embeddings.grad is not None
    assert not embeddings.grad.any()


def test_gradients_are_finite_and_pull_a_class_together() -> None:
    embeddings = torch.tensor([[1.0, 0.2], [1.0, -0.2], [-1.0, 0.1]], requires_grad=True)
    supervised_contrastive(embeddings, torch.tensor([0, 0, 1])).backward()
    assert embeddings.grad is not None
    assert torch.isfinite(embeddings.grad).all()
    assert embeddings.grad[0, 1] > 0 > embeddings.grad[1, 1]
