"""A budget of memory in bytes that calls share: first come, first served."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import ParamSpec, TypeVar

from services.common.errors import InvalidImageError

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Share:
    """Bytes that one call has taken. They go back when the call has ended and no function that uses them runs any more.

    Args:
        give_back: gives them back; called in the loop in which the share was made.
    """

    def __init__(self, give_back: Callable[[], None]) -> None:
        self._give_back = give_back
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._running = 0
        self._is_closed = False

    def used_by(self, function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        """The function, which keeps these bytes taken while it runs in a thread, even after its call was cancelled.

        If the call has ended before the function starts, the function raises ``asyncio.CancelledError`` instead.
        """

        def using(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            with self._lock:
                if self._is_closed:
                    raise asyncio.CancelledError
                self._running += 1
            try:
                return function(*args, **kwargs)
            finally:
                with self._lock:
                    self._running -= 1
                    is_last = self._is_closed and not self._running
                if is_last and not self._loop.is_closed():
                    self._loop.call_soon_threadsafe(self._give_back)

        return using

    def close(self) -> None:
        """End the call."""
        with self._lock:
            self._is_closed = True
            is_last = not self._running
        if is_last:
            self._give_back()


class MemoryBudget:
    """Bytes that may be taken at once. For one event loop.

    Calls get their bytes in the order in which they ask: a large one is not starved by small ones, and small ones wait for a large one only while it
    runs or is the next.

    Args:
        size: bytes in all.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._taken = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def taken_bytes(self) -> int:
        """Bytes that are taken now."""
        return self._taken

    @asynccontextmanager
    async def taken(self, count: int) -> AsyncIterator[Share]:
        """Take bytes, when it is this call's turn, for as long as the block lasts.

        Args:
            count: bytes, at least 0.

        Raises:
            InvalidImageError: IMAGE_TOO_LARGE: more than the whole budget. It is not taken alone: the budget is what the process has.
        """
        if count > self._size:
            raise InvalidImageError(
                "IMAGE_TOO_LARGE", f"The image takes {count >> 20} MiB of memory; this service has {self._size >> 20} MiB for all images."
            )
        if self._waiting or self._taken + count > self._size:
            await self._turn(count)
        else:
            self._taken += count
        share = Share(lambda: self._given_back(count))
        try:
            yield share
        finally:
            share.close()

    async def _turn(self, count: int) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((count, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._given_back(count)
            else:
                self._waiting.remove((count, turn))
                self._admit()
            raise

    def _given_back(self, count: int) -> None:
        self._taken -= count
        self._admit()

    def _admit(self) -> None:
        while self._waiting:
            count, turn = self._waiting[0]
            if self._taken + count > self._size:
                return
            self._waiting.popleft()
            if not turn.done():
                self._taken += count
                turn.set_result(None)
