"""A budget that callers share: bytes or slots. Fair where there is too little, and free for one caller who is alone."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from services.common import metrics
from services.common.admission.caller import Caller
from services.common.errors import OverloadedError


@dataclass(eq=False)
class Holding:
    """An amount that a caller holds. Release it once; releasing it again does nothing.

    Attributes:
        caller: who holds it.
        amount: how much.
        end: ends the work of an idle holding, which then releases it; None where the work cannot be ended.
        idle_since: since when the work only waits for its caller, seconds of ``time.monotonic``; None while it does not wait.
    """

    budget: Budget
    caller: Caller
    amount: int
    end: Callable[[], object] | None = None
    idle_since: float | None = None

    def idle(self, is_idle: bool = True) -> None:
        """Say whether the work only waits for its caller."""
        self.idle_since = time.monotonic() if is_idle else None

    def resize(self, amount: int) -> None:
        """Hold another amount from now on. Growth is granted at once: what the work needs is there already."""
        self.budget.resize(self, amount)

    def release(self) -> None:
        """Give everything back."""
        self.budget.resize(self, 0)


@dataclass(eq=False)
class _Waiter:
    caller: Caller
    amount: int
    end: Callable[[], object] | None
    granted: asyncio.Future[Holding] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Budget:
    """Bytes or slots that callers share.

    A caller may hold everything except a reserve. The reserve is for callers that hold less than their fair share, which is the budget divided
    by the number of callers that hold or want something. So nobody is shut out by one caller, and one caller who is alone is hardly limited.

    Args:
        limit: everything there is.
        reserve: kept for callers below their fair share.
        patience: seconds that a holding may be idle while others wait for room; then its work is ended.
        longest_wait: seconds that ``wait`` waits at most.
        most_waiting: how many may wait at once.
        name: of the budget in the metrics.
    """

    def __init__(self, limit: int, reserve: int, patience: float = 1.0, longest_wait: float = 10.0, most_waiting: int = 256, name: str = "") -> None:
        self._limit = limit
        self._reserve = min(reserve, limit - 1)
        self._patience = patience
        self._longest_wait = longest_wait
        self._most_waiting = most_waiting
        self._holdings: dict[Holding, None] = {}
        self._held: Counter[str] = Counter()
        self._total = 0
        self._waiting: list[_Waiter] = []
        self._refused_since: float | None = None
        metrics.HELD.labels(name).set_function(lambda: self._total)

    @property
    def stuck_seconds(self) -> float:
        """How long requests have been refused while nothing was given back; 0 where there is room."""
        return 0.0 if self._refused_since is None else time.monotonic() - self._refused_since

    @property
    def held(self) -> int:
        """What all callers hold."""
        return self._total

    def take(self, caller: Caller, amount: int, end: Callable[[], object] | None = None) -> Holding:
        """Take an amount now.

        Raises:
            OverloadedError: OVERLOADED: there is no room.
        """
        amount = self._possible(amount)
        if self._waiting or not self._has_room(caller, amount):
            raise self._refusal()
        return self._hold(caller, amount, end)

    async def wait(self, caller: Caller, amount: int, end: Callable[[], object] | None = None) -> Holding:
        """Take an amount as soon as there is room. Callers who hold least come first, then those who came first.

        Holdings that only wait for their callers are ended, the oldest of the largest caller first, when somebody has waited for ``patience``.

        Raises:
            OverloadedError: OVERLOADED: there was no room in time, or too many wait.
        """
        amount = self._possible(amount)
        if not self._waiting and self._has_room(caller, amount):
            return self._hold(caller, amount, end)
        if len(self._waiting) >= self._most_waiting:
            raise self._refusal()
        waiter = _Waiter(caller, amount, end)
        self._waiting.append(waiter)
        self._grant()
        try:
            await self._wait_for_room(waiter)
        except BaseException:
            if waiter.granted.done():
                waiter.granted.result().release()
            raise
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
        return waiter.granted.result()

    def resize(self, holding: Holding, amount: int) -> None:
        """See ``Holding``."""
        if holding not in self._holdings:
            return
        self._add(holding.caller, amount - holding.amount)
        holding.amount = amount
        self._refused_since = None
        if amount == 0:
            del self._holdings[holding]
        if self._waiting:
            self._grant()

    async def _wait_for_room(self, waiter: _Waiter) -> None:
        latest = time.monotonic() + self._longest_wait
        while True:
            left = latest - time.monotonic()
            if left <= 0.0:
                raise self._refusal()
            done, _ = await asyncio.wait({waiter.granted}, timeout=min(self._patience, left))
            if done:
                return
            self._end_one()

    def _grant(self) -> None:
        """Give waiters room, those whose callers hold least first."""
        for waiter in sorted(self._waiting, key=lambda w: self._held[w.caller.identity]):
            if self._has_room(waiter.caller, waiter.amount):
                self._waiting.remove(waiter)
                waiter.granted.set_result(self._hold(waiter.caller, waiter.amount, waiter.end))

    def _end_one(self) -> None:
        """End the work that has been idle for longest, of the caller who holds most."""
        now = time.monotonic()
        idle = [h for h in self._holdings if h.end is not None and h.idle_since is not None and now - h.idle_since >= self._patience]
        if idle:
            oldest = min(idle, key=lambda h: (-self._held[h.caller.identity], h.idle_since))
            end, oldest.end = oldest.end, None
            if end is not None:
                metrics.ENDED_IDLE.inc()
                end()

    def _has_room(self, caller: Caller, amount: int) -> bool:
        total = self._total + amount
        if total <= self._limit - self._reserve:
            return True
        callers = {identity for identity, held in self._held.items() if held} | {w.caller.identity for w in self._waiting} | {caller.identity}
        return total <= self._limit and len(callers) > 1 and self._held[caller.identity] + amount <= self._limit // len(callers)

    def _hold(self, caller: Caller, amount: int, end: Callable[[], object] | None) -> Holding:
        holding = Holding(self, caller, amount, end)
        self._holdings[holding] = None
        self._add(caller, amount)
        return holding

    def _add(self, caller: Caller, amount: int) -> None:
        self._total += amount
        self._held[caller.identity] += amount
        if not self._held[caller.identity]:
            del self._held[caller.identity]

    def _possible(self, amount: int) -> int:
        """What alone exceeds the budget is taken when nobody holds anything."""
        return min(amount, self._limit - self._reserve)

    def _refusal(self) -> OverloadedError:
        metrics.REFUSED.inc()
        self._refused_since = self._refused_since or time.monotonic()
        return OverloadedError("OVERLOADED", "The service has as much work as it accepts; try again later.")
