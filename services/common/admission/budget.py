"""A budget that callers share: bytes, slots or work. Fair where there is too little, and free for one caller who is alone."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from services.common import metrics
from services.common.admission.caller import Caller
from services.common.admission.pace import Pace, retry_after
from services.common.admission.priority import Priority
from services.common.errors import OverloadedError


@dataclass(eq=False)
class Holding:
    """An amount that a caller holds. Release it once; releasing it again does nothing.

    Attributes:
        caller: who holds it.
        amount: how much.
        end: ends the work of an idle holding, which then releases it; None where the work cannot be ended.
        idle_since: since when the work only waits for its caller, seconds of ``time.monotonic``; None while it does not wait.
        priority: of the work.
        worth: what its release counts as work done; the amount that was asked for, 0 for work that was given up.
    """

    budget: Budget
    caller: Caller
    amount: int
    end: Callable[[], object] | None = None
    idle_since: float | None = None
    priority: Priority = Priority.INTERACTIVE
    worth: int = 0

    def idle(self, is_idle: bool = True) -> None:
        """Say whether the work only waits for its caller."""
        self.idle_since = time.monotonic() if is_idle else None

    def resize(self, amount: int) -> None:
        """Hold another amount from now on. Growth is granted at once: what the work needs is there already."""
        self.budget.resize(self, amount)

    def release(self) -> None:
        """Give everything back."""
        self.budget.resize(self, 0)


@dataclass(frozen=True)
class WorkRules:
    """Rules of a budget of work. Its waiters are served strictly in order, so that a large piece of work is not starved by small ones.

    Attributes:
        most: pieces of work at once.
        most_batch: pieces of work of batches at once.
        most_batch_waiting: pieces of work of batches that wait at once.
        longest_wait: expected wait in seconds, by priority, beyond which work is refused at once.
    """

    most: int
    most_batch: int
    most_batch_waiting: int
    longest_wait: dict[Priority, float]


@dataclass(eq=False)
class _Waiter:
    caller: Caller
    amount: int
    priority: Priority
    end: Callable[[], object] | None
    granted: asyncio.Future[Holding] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Budget:
    """Bytes, slots or work that callers share.

    A caller may hold everything except a reserve. The reserve is for callers that hold less than their fair share, which is the budget divided
    by the number of callers that hold or want something. So nobody is shut out by one caller, and one caller who is alone is hardly limited.

    Who waits is served in this order: interactive work before that of batches, then callers who hold least, then those who came first.

    Args:
        limit: everything there is.
        reserve: kept for callers below their fair share.
        patience: seconds that a holding may be idle while others wait for room; then its work is ended.
        longest_wait: seconds that ``wait`` waits at most, where there are no rules of work.
        most_waiting: how many may wait at once.
        name: of the budget in the metrics.
        kept: kept for interactive work; that of batches never takes it.
        work: rules of a budget of work; None for bytes and slots, where a small amount may overtake a large one that finds no room.
    """

    def __init__(
        self,
        limit: int,
        reserve: int,
        patience: float = 1.0,
        longest_wait: float = 10.0,
        most_waiting: int = 256,
        name: str = "",
        *,
        kept: int = 0,
        work: WorkRules | None = None,
    ) -> None:
        self._limit = limit
        self._reserve = min(reserve, limit - 1)
        self._kept = min(kept, limit - self._reserve - 1)
        self._patience = patience
        self._longest_wait = longest_wait if work is None else math.inf
        self._most_waiting = most_waiting
        self._work = work
        self._pace = Pace(limit)
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

    def expected_wait(self, priority: Priority, amount: int = 0) -> float:
        """Seconds that further work of a priority is expected to wait; 0 where nothing waits before it and there is room for the amount."""
        ahead = [w for w in list(self._waiting) if w.priority <= priority]
        if not ahead and self._total + amount <= self._open_to(priority) - self._reserve and self._has_slot(priority):
            return 0.0
        return self._wait_behind(ahead, amount, priority)

    def take(self, caller: Caller, amount: int, end: Callable[[], object] | None = None) -> Holding:
        """Take an amount now, for interactive work.

        Raises:
            OverloadedError: OVERLOADED: there is no room.
        """
        amount = self._possible(amount, Priority.INTERACTIVE)
        if self._waiting or not self._has_room(caller, amount, Priority.INTERACTIVE):
            raise self._refusal(self._waiting, amount, Priority.INTERACTIVE)
        return self._hold(caller, amount, Priority.INTERACTIVE, end)

    def check(self, caller: Caller, amount: int, *, priority: Priority = Priority.INTERACTIVE, left: float = math.inf) -> None:
        """Raise what ``wait`` would raise at once; arguments as there.

        Raises:
            OverloadedError: OVERLOADED: there will be no room in time, or too many wait.
        """
        amount = self._possible(amount, priority)
        if self._is_open_to(caller, amount, priority):
            return
        ahead = self._ahead_of(caller, priority)
        if self._is_full(priority) or self._is_too_late(ahead, amount, priority, left):
            raise self._refusal(ahead, amount, priority)

    async def wait(
        self,
        caller: Caller,
        amount: int,
        end: Callable[[], object] | None = None,
        *,
        priority: Priority = Priority.INTERACTIVE,
        left: float = math.inf,
    ) -> Holding:
        """Take an amount as soon as there is room.

        Holdings that only wait for their callers are ended, the oldest of the largest caller first, when somebody has waited for ``patience``.
        A budget of work refuses at once where it expects too long a wait.

        Args:
            caller: who takes it.
            amount: how much; what alone exceeds the budget is cut to it.
            end: see ``Holding``.
            priority: of the work.
            left: seconds until the caller's deadline. The wait does not end there, but work that would begin later is refused.

        Raises:
            OverloadedError: OVERLOADED: there was no room in time, there will be none in time, or too many wait.
        """
        self.check(caller, amount, priority=priority, left=left)
        amount = self._possible(amount, priority)
        if self._is_open_to(caller, amount, priority):
            return self._hold(caller, amount, priority, end)
        waiter = _Waiter(caller, amount, priority, end)
        self._waiting.append(waiter)
        self._grant()
        try:
            await self._wait_for_room(waiter)
        except BaseException:
            if waiter.granted.done():
                waiter.granted.result().worth = 0
                waiter.granted.result().release()
            raise
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
                self._grant()
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
            self._pace.ended(time.monotonic(), holding.priority, holding.worth)
        self._grant()

    async def _wait_for_room(self, waiter: _Waiter) -> None:
        latest = time.monotonic() + self._longest_wait
        while True:
            left = latest - time.monotonic()
            if left <= 0.0:
                raise self._refusal(self._ahead_of(waiter.caller, waiter.priority), waiter.amount, waiter.priority)
            done, _ = await asyncio.wait({waiter.granted}, timeout=min(self._patience, left))
            if done:
                return
            self._end_one()

    def _grant(self) -> None:
        """Give waiters room, in order."""
        while self._waiting and (waiter := self._next()) is not None:
            self._waiting.remove(waiter)
            waiter.granted.set_result(self._hold(waiter.caller, waiter.amount, waiter.priority, waiter.end))

    def _next(self) -> _Waiter | None:
        for waiter in sorted(self._waiting, key=lambda w: self._place(w.caller, w.priority)):
            if self._has_room(waiter.caller, waiter.amount, waiter.priority):
                return waiter
            if self._work is not None:
                break
        return None

    def _place(self, caller: Caller, priority: Priority) -> tuple[Priority, int]:
        """Who has the lower place is served first, and of equal ones who came first."""
        return priority, self._held[caller.identity]

    def _ahead_of(self, caller: Caller, priority: Priority) -> Sequence[_Waiter]:
        """Those who are served before a caller that comes now."""
        place = self._place(caller, priority)
        return [w for w in self._waiting if self._place(w.caller, w.priority) <= place]

    def _wait_behind(self, ahead: Sequence[_Waiter], amount: int, priority: Priority) -> float:
        return self._pace.wait(time.monotonic(), [*((w.priority, w.amount) for w in ahead), (priority, amount)], priority)

    def _is_open_to(self, caller: Caller, amount: int, priority: Priority) -> bool:
        """Whether nobody is served before a caller, and there is room now."""
        return not self._ahead_of(caller, priority) and self._has_room(caller, amount, priority)

    def _is_full(self, priority: Priority) -> bool:
        """Whether as many wait as may."""
        is_full = len(self._waiting) >= self._most_waiting
        if self._work is None or priority is Priority.INTERACTIVE:
            return is_full
        return is_full or sum(w.priority is Priority.BATCH for w in self._waiting) >= self._work.most_batch_waiting

    def _is_too_late(self, ahead: Sequence[_Waiter], amount: int, priority: Priority, left: float) -> bool:
        return self._work is not None and self._wait_behind(ahead, amount, priority) > min(self._work.longest_wait[priority], left)

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

    def _has_room(self, caller: Caller, amount: int, priority: Priority) -> bool:
        total, limit = self._total + amount, self._open_to(priority)
        if not self._has_slot(priority):
            return False
        if total <= limit - self._reserve:
            return True
        callers = {identity for identity, held in self._held.items() if held} | {w.caller.identity for w in self._waiting} | {caller.identity}
        return total <= limit and len(callers) > 1 and self._held[caller.identity] + amount <= limit // len(callers)

    def _has_slot(self, priority: Priority) -> bool:
        if self._work is None:
            return True
        is_free = len(self._holdings) < self._work.most
        return is_free and (priority is Priority.INTERACTIVE or self._pace.count(Priority.BATCH) < self._work.most_batch)

    def _open_to(self, priority: Priority) -> int:
        return self._limit - (self._kept if priority is Priority.BATCH else 0)

    def _hold(self, caller: Caller, amount: int, priority: Priority, end: Callable[[], object] | None) -> Holding:
        holding = Holding(self, caller, amount, end, priority=priority, worth=amount)
        self._holdings[holding] = None
        self._add(caller, amount)
        self._pace.begun(time.monotonic(), priority)
        return holding

    def _add(self, caller: Caller, amount: int) -> None:
        self._total += amount
        self._held[caller.identity] += amount
        if not self._held[caller.identity]:
            del self._held[caller.identity]

    def _possible(self, amount: int, priority: Priority) -> int:
        """What alone exceeds the budget is taken when nobody holds anything."""
        return min(amount, self._open_to(priority) - self._reserve)

    def _refusal(self, ahead: Sequence[_Waiter], amount: int, priority: Priority) -> OverloadedError:
        metrics.REFUSED.inc()
        self._refused_since = self._refused_since or time.monotonic()
        text = "The service has as much work as it accepts; try again later."
        return OverloadedError("OVERLOADED", text, retry_after=retry_after(self._wait_behind(ahead, amount, priority)))
