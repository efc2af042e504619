"""Tests of the decomposition of similarity over places."""

from __future__ import annotations

import numpy as np
import pytest

from services.retrieval.neighbours import unit
from services.retrieval.similarity import Float, grad_cam, normalise_places, place_similarities, quantise, similarity_map


def _places(seed: int, rows: int = 8, columns: int = 8, dimension: int = 64) -> Float:
    return np.random.default_rng(seed).normal(0.3, 1.0, (rows, columns, dimension)).astype(np.float32)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (1, 1), (3, 5)])
def test_mean_of_the_map_is_the_cosine_similarity(seed: int, rows: int, columns: int) -> None:
    query, other = _places(seed, rows, columns), _places(seed + 100, rows, columns)
    a, b = query.mean(axis=(0, 1), dtype=np.float64), other.mean(axis=(0, 1), dtype=np.float64)
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    contributions = similarity_map(normalise_places(query), unit(other.mean(axis=(0, 1))))
    assert contributions.shape == (rows, columns)
    assert contributions.mean(dtype=np.float64) == pytest.approx(cosine, abs=1e-5)


def test_a_map_says_where() -> None:
    places = np.zeros((2, 2, 3), np.float32)
    places[0, 0, 0], places[0, 1, 1], places[1, 0, 0] = 4.0, 4.0, -2.0
    other = np.array([1.0, 0.0, 0.0], np.float32)
    np.testing.assert_allclose(similarity_map(places, other), [[4, 0], [-2, 0]])


def test_normalised_places_have_a_mean_of_unit_length() -> None:
    places = normalise_places(_places(3) * 17)
    assert np.linalg.norm(places.mean(axis=(0, 1))) == pytest.approx(1.0, abs=1e-5)
    assert places.dtype == np.float32


def test_places_without_a_mean_stay_finite() -> None:
    assert not normalise_places(np.zeros((2, 2, 4), np.float32)).any()


def test_quantise() -> None:
    np.testing.assert_array_equal(quantise(np.array([[-3.0, 0.0], [1.0, 2.0]], np.float32)), [[0, 0], [128, 255]])
    assert quantise(np.array([[0.2]], np.float32)).dtype == np.uint8


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_quantise_without_any_resemblance(value: float) -> None:
    np.testing.assert_array_equal(quantise(np.full((3, 2), value, np.float32)), np.zeros((3, 2)))


@pytest.mark.parametrize("seed", range(3))
def test_point_maps_add_up_to_the_maps_of_both_cells_and_to_the_similarity(seed: int) -> None:
    query, other = normalise_places(_places(seed, 3, 5)), normalise_places(_places(seed + 50, 4, 2))
    pairs = place_similarities(query, other)
    assert pairs.shape == (3, 5, 4, 2)
    np.testing.assert_allclose(pairs.mean(axis=(2, 3)), similarity_map(query, other.mean(axis=(0, 1))), atol=1e-4)
    np.testing.assert_allclose(pairs.mean(axis=(0, 1)), similarity_map(other, query.mean(axis=(0, 1))), atol=1e-4)
    assert pairs.mean() == pytest.approx(float(query.mean(axis=(0, 1)) @ other.mean(axis=(0, 1))), abs=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_the_closed_form_is_what_automatic_differentiation_says(seed: int) -> None:
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(4, 3, 16, generator=generator, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(16, 8, generator=generator, dtype=torch.float64)
    other = torch.nn.functional.normalize(torch.randn(8, generator=generator, dtype=torch.float64), dim=0)
    places = features @ weights
    torch.nn.functional.cosine_similarity(places.mean(dim=(0, 1)), other, dim=0).backward()
    expected = (features.grad * features).sum(dim=2).detach().numpy() * 12
    found = grad_cam(normalise_places(places.detach().numpy().astype(np.float32)), other.numpy().astype(np.float32))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.mean() == pytest.approx(0.0, abs=1e-5)
