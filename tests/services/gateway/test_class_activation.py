"""Tests of the maps of a decision: their mean is the decision, both are of one scale."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from services.gateway.class_activation import evidence_maps, log_odds
from services.gateway.fusion import blast_probability

ACTIVATIONS = hnp.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(2, 3)), elements=st.floats(-40, 40, width=32))


def test_places_speak_for_one_class_each_on_one_scale() -> None:
    activations = np.zeros((1, 3, 3), np.float32)
    activations[0, :, 0], activations[0, :, 1], activations[0, :, 2] = (0.0, 2.0, 1.0), (4.0, 0.0, 1.0), 9.0
    maps = evidence_maps(activations)
    assert maps.scale == 4.0
    assert maps.for_blast.tolist() == [[255, 0, 0]]
    assert maps.for_normal.tolist() == [[0, 128, 0]]


@given(ACTIVATIONS)
def test_the_mean_of_the_places_is_the_decision(activations: np.ndarray) -> None:
    logits = activations.astype(np.float64).mean(axis=(0, 1))
    mean = float(log_odds(activations).astype(np.float64).mean())
    np.testing.assert_allclose(1 / (1 + np.exp(-mean)), blast_probability(logits), atol=1e-5)
    maps = evidence_maps(activations)
    restored = (maps.for_blast.astype(float) - maps.for_normal) * maps.scale / 255
    assert np.abs(restored - log_odds(activations)).max() <= maps.scale / 255 + 1e-6
    assert not (maps.for_blast.astype(int) * maps.for_normal).any()
