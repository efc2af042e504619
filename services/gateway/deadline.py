"""Deadline of a call."""

from __future__ import annotations

import time


class Deadline:
    """When a call ends.

    Args:
        seconds: from now.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds left, at least 1 ms, so that a call that starts late still ends as DEADLINE_EXCEEDED."""
        return max(0.001, self._end - time.monotonic())
