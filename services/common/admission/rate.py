"""How fast work is done, measured over the last seconds in which there was some."""

from __future__ import annotations

import math
from typing import Final

_FIRST_SECONDS: Final = 1.0
"""What is assumed counts as much as so many seconds of measurement."""


class Rate:
    """The rate at which work is given back while there is work. Old measurements fade; idle time neither counts nor fades.

    Args:
        assumed: amount a second, above 0, before anything was measured.
        memory: seconds of work after which a measurement counts 1/e.
    """

    def __init__(self, assumed: float, memory: float = 5.0) -> None:
        self._memory = memory
        self._amount, self._seconds = assumed * _FIRST_SECONDS, _FIRST_SECONDS
        self._busy_since: float | None = None

    def note(self, now: float, given_back: float, *, is_busy: bool) -> None:
        """Note what was given back now.

        Args:
            now: seconds of a clock that never goes back.
            given_back: amount, at least 0.
            is_busy: whether there is work from now on.
        """
        self._amount, self._seconds = self._faded(now)
        self._amount += given_back
        self._busy_since = now if is_busy else None

    def per_second(self, now: float) -> float:
        """Amount a second; never 0, but near 0 where there is work and none was given back for long."""
        amount, seconds = self._faded(now)
        return amount / seconds

    def _faded(self, now: float) -> tuple[float, float]:
        if self._busy_since is None:
            return self._amount, self._seconds
        kept = max(math.exp((self._busy_since - now) / self._memory), 1e-9)
        return max(self._amount * kept, 1e-9), self._seconds * kept + self._memory * (1.0 - kept)
