"""Tests of the linear classifier of features that are not learned."""

from __future__ import annotations

import numpy as np
import pytest

from training.learning.linear import linear_margins
from training.metrics.by_patient import auc


def _two_clouds(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(count) % 2
    features = np.random.default_rng(seed).normal(0, 1, (count, 3))
    features[:, 0] += 3 * labels
    return features, labels


def test_what_varies_with_the_class_is_learned() -> None:
    (train, labels), (test, truth) = _two_clouds(80, 0), _two_clouds(60, 1)
    margins = linear_margins(train, labels, test)
    assert margins.shape == (60,)
    assert auc(margins, truth) > 0.95
    assert ((margins > 0) == (truth == 1)).mean() > 0.85


def test_the_minimum_of_the_documented_loss_is_found() -> None:
    train, labels = _two_clouds(60, 2)
    test = np.concatenate([np.zeros((1, 3)), np.eye(3)]) * train.std(axis=0) + train.mean(axis=0)
    at_origin, *steps = linear_margins(train, labels, test, ridge=0.1)
    coefficients = np.array(steps) - at_origin
    x, signs = (train - train.mean(axis=0)) / train.std(axis=0), np.where(labels == 1, 1.0, -1.0)

    def loss(w: np.ndarray, bias: float) -> float:
        losses = np.logaddexp(0.0, -signs * (x @ w + bias))
        return float((losses[labels == 1].mean() + losses[labels == 0].mean()) / 2 + 0.1 * (w**2).sum() / 2)

    least = loss(coefficients, at_origin)
    for change in np.concatenate([np.eye(4), -np.eye(4)]) * 0.05:
        assert loss(coefficients + change[:3], at_origin + change[3]) > least


def test_both_classes_count_the_same() -> None:
    train = np.array([[0.0], [1.0]] + [[1.0]] * 9)
    margins = linear_margins(train, np.array([0] + [1] * 10), np.array([[0.0], [1.0]]))
    assert margins[0] == pytest.approx(-margins[1], rel=1e-2)


def test_the_unit_of_a_feature_does_not_matter() -> None:
    (train, labels), (test, _) = _two_clouds(40, 3), _two_clouds(20, 4)
    units = np.array([1000.0, 0.01, 1.0])
    np.testing.assert_allclose(linear_margins(train * units, labels, test * units), linear_margins(train, labels, test), rtol=1e-3, atol=1e-4)


def test_more_ridge_makes_margins_smaller() -> None:
    (train, labels), (test, _) = _two_clouds(40, 5), _two_clouds(20, 6)
    assert np.abs(linear_margins(train, labels, test, ridge=10.0)).max() < np.abs(linear_margins(train, labels, test)).max() / 4


@pytest.mark.parametrize("value", [0.0, 0.1, 1.0])
def test_a_feature_that_does_not_vary_says_nothing(value: float) -> None:
    labels = np.arange(31) % 2
    margins = linear_margins(np.full((31, 1), value), labels, np.array([[value], [value + 1.0], [-5.0]]))
    assert len(np.unique(margins)) == 1
    assert auc(margins, np.array([1, 0, 1])) == 0.5


def test_rounding_of_a_mean_is_not_taken_for_a_feature() -> None:
    (train, labels), (test, _) = _two_clouds(61, 7), _two_clouds(20, 8)
    constant, other = np.full((61, 1), 0.7), np.arange(20.0)[:, None]
    assert constant.std() > 0.0  # by rounding alone
    margins = linear_margins(np.concatenate([train, constant], axis=1), labels, np.concatenate([test, other], axis=1))
    np.testing.assert_allclose(margins, linear_margins(train, labels, test), atol=1e-6)
