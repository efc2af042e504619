"""The two ways to make load: a closed loop, which waits for answers, and an open loop, which does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from tests.load.calls import INTERACTIVE, Call, Caller, Outcome, Priority

Keep = Callable[[Call], object]
_PAUSE_SECONDS: Final = 0.05
"""After a refusal that names no time."""


async def closed_loop(caller: Caller, in_flight: int, seconds: float, keep: Keep, priority: Priority = INTERACTIVE) -> None:
    """So many callers who send their next image when they have the answer to the last.

    Args:
        caller: sends.
        in_flight: calls in flight at once.
        seconds: when no further call begins; those in flight are awaited.
        keep: gets every call that has ended.
        priority: of the images.
    """
    caller.start()

    async def one() -> None:
        while (now := caller.now) < seconds:
            call = await caller.call(now, priority)
            keep(call)
            if call.outcome is not Outcome.ANSWERED:
                await asyncio.sleep(min(call.retry_seconds or _PAUSE_SECONDS, max(seconds - caller.now, 0.0)))

    await asyncio.gather(*(one() for _ in range(in_flight)))


async def open_loop(caller: Caller, arrivals: Iterable[float], keep: Keep, priority: Priority = INTERACTIVE) -> None:
    """Send at given times, whatever has been answered; all calls are awaited at the end.

    Args:
        caller: sends; its clock was started.
        arrivals: when to send, seconds by the clock of the caller, ascending.
        keep: gets every call that has ended.
        priority: of the images.
    """
    under_way: set[asyncio.Task[None]] = set()
    faults: list[BaseException] = []

    async def one(intended: float) -> None:
        keep(await caller.call(intended, priority))

    def ended(task: asyncio.Task[None]) -> None:
        under_way.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            faults.append(fault)

    try:
        for intended in arrivals:
            await asyncio.sleep(max(intended - caller.now, 0.0))
            if faults:
                raise faults[0]
            task = asyncio.create_task(one(intended))
            under_way.add(task)
            task.add_done_callback(ended)
        while under_way:
            await asyncio.wait(set(under_way))
        if faults:
            raise faults[0]
    finally:
        for task in under_way:
            task.cancel()
