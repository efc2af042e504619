"""Streams of random numbers: one for each purpose, so that a change of one leaves the others as they are."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """Purpose of a stream of random numbers."""

    CELLS = 0
    LAYOUT = 1
    RED_CELLS = 2
    PLATELETS = 3
    LIGHT = 4
    NOISE = 5


def stream(seed: int, purpose: Purpose) -> np.random.Generator:
    """The random numbers of a seed for one purpose."""
    return np.random.default_rng([seed, int(purpose)])


def check_seed(seed: int) -> None:
    """Refuse a negative seed.

    Raises:
        ValueError: It is negative.
    """
    if seed < 0:
        raise ValueError(f"seed must be 0 or greater, but is {seed}.")
