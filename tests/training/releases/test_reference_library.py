"""Tests of how the reference library is chosen and built."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from services.retrieval.library import open_library
from services.retrieval.neighbours import project
from training.releases.reference_library import Candidates, build, choose, principal_axes, save


def _candidates(groups: dict[tuple[str, str, bool], int], seed: int = 0) -> Candidates:
    """Cells by (class, patient, blast or not) and number."""
    rows = [key for key, count in groups.items() for _ in range(count)]
    generator = np.random.default_rng(seed)
    places = generator.normal(0.5, 1.0, (len(rows), 2, 2, 8)).astype(np.float32)
    return Candidates(
        embeddings=places.mean(axis=(1, 2)),
        place_embeddings=places,
        is_blast=np.array([blast for _, _, blast in rows]),
        reference_ids=np.array([f"source/{c}/{i}" for i, (c, _, _) in enumerate(rows)]),
        cell_classes=np.array([c for c, _, _ in rows]),
        patients=np.array([p for _, p, _ in rows]),
        image_sha256=np.array([f"{i:064x}" for i in range(len(rows))]),
        centers=generator.uniform(0, 9, (len(rows), 2)).astype(np.float32),
        radii=generator.uniform(5, 9, len(rows)).astype(np.float32),
    )


GROUPS = {
    ("blast", "a", True): 500,
    ("blast", "b", True): 20,
    ("lymphocyte", "a", False): 400,
    ("lymphocyte", "b", False): 30,
    ("monocyte", "c", False): 10,
}


@pytest.mark.parametrize("per_class", [1, 7, 8, 9, 60])
def test_as_many_blasts_as_normal_cells(per_class: int) -> None:
    candidates = _candidates(GROUPS)
    chosen = choose(candidates, per_class)
    assert len(chosen) == len(set(chosen.tolist())) == 2 * per_class
    assert chosen.tolist() == sorted(chosen.tolist())
    assert candidates.is_blast[chosen].sum() == per_class


def test_no_patient_and_no_class_fills_the_library() -> None:
    candidates = _candidates(GROUPS)
    chosen = choose(candidates, per_class=60)
    count = Counter(zip(candidates.cell_classes[chosen].tolist(), candidates.patients[chosen].tolist(), strict=True))
    # In turn, until a group is empty; what is left goes to the others.
    assert count[("blast", "b")] == 20
    assert count[("blast", "a")] == 40
    assert count[("monocyte", "c")] == 10
    assert {count[("lymphocyte", "a")], count[("lymphocyte", "b")]} == {25}


def test_fewer_cells_than_wanted_are_all_taken() -> None:
    candidates = _candidates({("blast", "a", True): 3, ("lymphocyte", "a", False): 50})
    chosen = choose(candidates, per_class=10)
    assert candidates.is_blast[chosen].sum() == 3
    assert len(chosen) == 13


def test_the_choice_is_repeatable_and_drawn() -> None:
    candidates = _candidates(GROUPS)
    np.testing.assert_array_equal(choose(candidates, 30), choose(candidates, 30))
    assert choose(candidates, 30, seed=4).tolist() != choose(candidates, 30).tolist()


@pytest.fixture
def candidates() -> Candidates:
    return _candidates({("blast", "a", True): 12, ("lymphocyte", "b", False): 12})


def test_a_library_is_built_saved_and_opened(candidates: Candidates, tmp_path: Path) -> None:
    chosen = np.array([1, 5, 9, 13, 20])
    built = build(candidates, chosen)
    save(built, tmp_path / "deep" / "library.npz")
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["library.npz"]
    opened = open_library(tmp_path / "deep" / "library.npz")
    for name, array in vars(built).items():
        np.testing.assert_array_equal(getattr(opened, name), array)
    np.testing.assert_array_equal(opened.reference_ids, candidates.reference_ids[chosen])
    np.testing.assert_array_equal(opened.is_blast, [True, True, True, False, False])
    lengths = np.linalg.norm(candidates.embeddings[chosen], axis=1, keepdims=True)
    np.testing.assert_allclose(opened.embeddings, candidates.embeddings[chosen] / lengths, atol=1e-6)


def test_quantised_place_embeddings_keep_their_mean(candidates: Candidates) -> None:
    library = build(candidates, np.arange(24))
    for index in range(24):
        places = library.places_of(index)
        assert places is not None
        np.testing.assert_allclose(places.mean(axis=(0, 1)), library.embeddings[index], atol=2 * float(library.place_scales[index]))
        exact = candidates.place_embeddings[index] / np.linalg.norm(candidates.embeddings[index])
        assert np.abs(places - exact).max() <= 0.51 * library.place_scales[index]


def test_the_same_library_gives_the_same_file(candidates: Candidates, tmp_path: Path) -> None:
    for name in ("one.npz", "two.npz"):
        save(build(candidates, np.arange(10)), tmp_path / name)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_references_lie_in_the_latent_square(candidates: Candidates) -> None:
    library = build(candidates, np.arange(24))
    positions = project(library.embeddings, library.projection_mean, library.projection)
    np.testing.assert_allclose(np.abs(positions).max(axis=0), 1, atol=1e-4)


def test_principal_axes_find_the_widest_directions() -> None:
    generator = np.random.default_rng(0)
    points = (generator.normal(size=(500, 4)) * [0.1, 5.0, 0.2, 2.0] + 3).astype(np.float32)
    mean, axes = principal_axes(points)
    np.testing.assert_allclose(mean, points.mean(axis=0), atol=1e-5)
    assert np.argmax(np.abs(axes[0])) == 1
    assert np.argmax(np.abs(axes[1])) == 3
