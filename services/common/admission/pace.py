"""How long work of a priority will wait, from the work ahead of it and from the pace at which work was done lately."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Final

from services.common.admission.priority import Priority
from services.common.admission.rate import Rate

_TURNOVER_SECONDS: Final = 2.0
"""Before anything was measured: what fills a budget is assumed to be given back within this time."""
SHORTEST_RETRY: Final = 0.1
LONGEST_RETRY: Final = 10.0


class Pace:
    """The pace of a budget: of all its work, and of the work of batches alone, which gets what the rest leaves.

    Amounts are those that were asked for at first. So work that waits and work that was done are counted alike, however much it turned out to be.

    Args:
        limit: everything there is.
    """

    def __init__(self, limit: int) -> None:
        self._rates = {priority: Rate(limit / _TURNOVER_SECONDS) for priority in Priority}
        self._under_way: Counter[Priority] = Counter()

    def begun(self, now: float, priority: Priority) -> None:
        """Work has begun; ``now`` as for ``Rate``."""
        self._note(now, priority, 0, 1)

    def ended(self, now: float, priority: Priority, amount: float) -> None:
        """Work has ended; 0 for one that was given up."""
        self._note(now, priority, amount, -1)

    def count(self, priority: Priority) -> int:
        """Pieces of work of a priority that are under way."""
        return self._under_way[priority]

    def wait(self, now: float, ahead: Iterable[tuple[Priority, int]], priority: Priority) -> float:
        """Expected seconds until work has begun.

        Args:
            now: as for ``Rate``.
            ahead: priority and amount of all work that waits before it, and of itself.
            priority: of the work.
        """
        amounts: Counter[Priority] = Counter()
        for of, amount in ahead:
            amounts[of if priority is Priority.BATCH else Priority.INTERACTIVE] += amount
        return sum(amount / self._rates[of].per_second(now) for of, amount in amounts.items())

    def _note(self, now: float, priority: Priority, amount: float, change: int) -> None:
        self._under_way[priority] += change
        self._rates[Priority.INTERACTIVE].note(now, amount, is_busy=any(self._under_way.values()))
        if priority is Priority.BATCH:
            self._rates[Priority.BATCH].note(now, amount, is_busy=self._under_way[Priority.BATCH] > 0)


def retry_after(expected: float) -> float:
    """Seconds after which a refused caller may try again, from its expected wait."""
    return SHORTEST_RETRY if math.isnan(expected) else min(max(expected, SHORTEST_RETRY), LONGEST_RETRY)
