"""Tests of the losses: by hand, and against loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from training.learning.losses import (
    inverse_count_weights,
    multi_label_soft_margin,
    positive_weights,
    supervised_contrastive,
    triplet_margin,
    weighted_cross_entropy,
)


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


def test_class_weights_by_hand() -> None:
    labels = np.zeros((100, 4), np.int8)
    labels[:50, 0] = labels[:25, 1] = labels[:4, 2] = 1
    assert inverse_count_weights(labels).tolist() == [2.0, 4.0, 10.0, 0.0]
    assert inverse_count_weights(labels, mask_empty=False).tolist() == [2.0, 4.0, 10.0, 10.0]


def test_multi_label_soft_margin_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, -math.log(3.0)]])
    labels = torch.tensor([[1, 1], [0, 1]])
    weights = torch.tensor([2.0, 1.0])
    expected = (2 * math.log(2) + math.log(4 / 3) + 2 * math.log(2) + math.log(4)) / 4
    assert float(multi_label_soft_margin(logits, labels, weights)) == pytest.approx(expected)


def test_positives_count_as_often_as_there_are_negatives_to_each() -> None:
    labels = np.zeros((10, 3), np.int8)
    labels[:2, 0] = labels[:5, 1] = 1
    assert positive_weights(labels).tolist() == [4.0, 1.0, 1.0]
    logits, truth = torch.zeros(10, 3), torch.from_numpy(labels)
    loss = multi_label_soft_margin(logits, truth, torch.ones(3), torch.from_numpy(positive_weights(labels)))
    assert float(loss) == pytest.approx(math.log(2) * (8 + 8 + 5 + 5 + 10) / 30)


def test_multi_label_soft_margin_is_torchs_for_equal_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(7, 5, generator=generator), torch.rand(7, 5, generator=generator) < 0.4
    expected = torch.nn.functional.multilabel_soft_margin_loss(logits, labels.float())
    assert float(multi_label_soft_margin(logits, labels, torch.ones(5))) == pytest.approx(float(expected))


def test_weighted_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]])
    loss = weighted_cross_entropy(logits, torch.tensor([0, 1]), torch.tensor([1.0, 3.0]))
    assert float(loss) == pytest.approx((math.log(2) + 3 * math.log(4)) / 2)


def test_triplets_by_hand() -> None:
    # At 0, 90 and 180 degrees: the anchors 0 and 90 of one class are sqrt(2) apart; the other class is 2 and sqrt(2) from them.
    embeddings = torch.tensor([[3.0, 0.0], [0.0, 0.5], [-1.0, 0.0]])
    classes = torch.tensor([0, 0, 1])
    assert triplet_margin(embeddings, classes, margin=0.05).item() == pytest.approx(0.05)
    assert triplet_margin(embeddings, classes, margin=1.0).item() == pytest.approx((math.sqrt(2) - 2 + 1 + 1) / 2)


@pytest.mark.parametrize("margin", [0.05, 0.5])
def test_triplets_against_loops(margin: float) -> None:
    embeddings = torch.randn(11, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    classes = [0, 1, 2, 0, 1, 0, 2, 0, 3, 1, 0]
    unit = [row / row.norm() for row in embeddings]
    costs = [
        float((unit[a] - unit[p]).norm() - (unit[a] - unit[n]).norm()) + margin
        for a in range(11)
        for p in range(11)
        for n in range(11)
        if a != p and classes[a] == classes[p] and classes[a] != classes[n]
    ]
    counted = [c for c in costs if c > 0]
    assert 0 < len(counted) < len(costs)
    assert triplet_margin(embeddings, torch.tensor(classes), margin).item() == pytest.approx(sum(counted) / len(counted), rel=1e-9)


@pytest.mark.parametrize("classes", [[0, 1, 2, 3], [1, 1, 1, 1]])
def test_without_a_triplet_the_loss_is_zero_and_can_be_differentiated(classes: list[int]) -> None:
    embeddings = torch.randn(4, 3, generator=torch.Generator().manual_seed(3), requires_grad=True)
    loss = triplet_margin(embeddings, torch.tensor(classes))
    loss.backward()
    assert loss.item() == 0.0
    assert embeddings.grad is not None
    assert not embeddings.grad.any()


def test_equal_cells_have_finite_gradients_and_classes_that_are_apart_cost_nothing() -> None:
    embeddings = torch.tensor([[1.0, 0.0], [2.0, 0.0], [1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    triplet_margin(embeddings, torch.tensor([0, 0, 1, 1])).backward()
    assert embeddings.grad is not None
    assert torch.isfinite(embeddings.grad).all()
    apart = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
    assert triplet_margin(apart, torch.tensor([0, 0, 1, 1])).item() == 0.0


def test_half_precision_is_not_too_coarse_for_the_margin() -> None:
    embeddings = torch.randn(8, 4, generator=torch.Generator().manual_seed(4)).bfloat16()
    classes = torch.tensor([0, 0, 1, 1, 2, 2, 0, 1])
    assert triplet_margin(embeddings, classes).item() == pytest.approx(triplet_margin(embeddings.double(), classes).item(), rel=1e-5)
