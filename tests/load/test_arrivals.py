"""Arrivals of open loops."""

from __future__ import annotations

import numpy as np
import pytest

from tests.load.arrivals import fixed, poisson


def test_random_arrivals_have_their_rate_and_no_memory() -> None:
    times = np.array(list(poisson(50.0, 400.0, seed=1)))
    gaps = np.diff(times)
    assert len(times) == pytest.approx(20_000, rel=0.03)
    assert (gaps >= 0).all()
    assert times[-1] < 400.0
    assert gaps.std() / gaps.mean() == pytest.approx(1.0, abs=0.03)
    assert np.corrcoef(gaps[:-1], gaps[1:])[0, 1] == pytest.approx(0.0, abs=0.03)


def test_a_seed_gives_the_same_arrivals() -> None:
    assert list(poisson(10.0, 5.0, seed=7)) == list(poisson(10.0, 5.0, seed=7))
    assert list(poisson(10.0, 5.0, seed=7)) != list(poisson(10.0, 5.0, seed=8))


def test_fixed_arrivals_are_even() -> None:
    assert list(fixed(4.0, 1.0)) == [0.0, 0.25, 0.5, 0.75]
