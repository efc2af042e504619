"""Taking places away in the order of a map, and what is said of the areas."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from training.evaluation.faithfulness import SHARES, differences, maps_of, removals


def test_places_go_in_the_order_of_the_map_and_all_of_them_at_the_end() -> None:
    whole, without = np.full((16, 16, 3), 200, np.uint8), np.zeros((16, 16, 3), np.uint8)
    scores = np.arange(16, dtype=np.float32).reshape(4, 4)
    crops = removals(whole, without, scores)
    assert crops.shape == (len(SHARES), 16, 16, 3)
    assert np.array_equal(crops[0], whole)
    assert np.array_equal(crops[-1], without)
    gone = (crops[..., 0] == 0).reshape(len(SHARES), 4, 4, 4, 4).all(axis=(2, 4))
    assert gone[1].sum() == 1
    assert gone[1, 3, 3]
    assert [int(g.sum()) for g in gone] == [round(s * 16) for s in SHARES]
    assert all((later | earlier == later).all() for earlier, later in itertools.pairwise(gone))


def test_the_centre_is_highest_in_the_middle_and_random_differs_by_cell() -> None:
    patches = np.random.default_rng(0).normal(size=(8, 8, 4)).astype(np.float32)
    maps = maps_of(patches, np.eye(4, dtype=np.float32)[0], 1)
    assert {m.shape for m in maps.values()} == {(8, 8)}
    assert maps["centre"][3:5, 3:5].min() > maps["centre"][0].max()
    assert not np.array_equal(maps["random"], maps_of(patches, np.eye(4, dtype=np.float32)[0], 2)["random"])


def test_better_is_lower_for_deletion_and_higher_for_insertion() -> None:
    patients = np.repeat([f"p{i}" for i in range(6)], 5)
    base = np.random.default_rng(0).random(30)
    measured = {"similarity map": base - 0.1, "Grad-CAM": base, "random": base, "centre": base - 0.2}
    deletion = differences(measured, patients, -1.0)
    assert deletion["similarity map better than random"].value == pytest.approx(0.1)
    assert deletion["similarity map better than centre"].value == pytest.approx(-0.1)
    assert differences(measured, patients, 1.0)["similarity map better than random"].high < 0
