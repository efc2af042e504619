"""When calls are sent in an open loop: times that do not depend on the answers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def poisson(rate: float, seconds: float, seed: int) -> Iterator[float]:
    """Arrivals of many callers who know nothing of each other.

    Args:
        rate: arrivals per second, above 0.
        seconds: how long they go on.
        seed: of the draws.

    Yields:
        Seconds since the start, ascending, below ``seconds``.
    """
    draws = np.random.default_rng(seed)
    now = 0.0
    while True:
        for gap in draws.exponential(1.0 / rate, 256).tolist():
            now += gap
            if now >= seconds:
                return
            yield now


def fixed(rate: float, seconds: float) -> Iterator[float]:
    """Arrivals at a fixed rate; arguments and result as for ``poisson``."""
    for number in range(int(rate * seconds)):
        yield number / rate
