"""Slots that limit how many images are worked on at once; other images wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.common import metrics
from services.gateway.deadline import Deadline


class ImageSlots:
    """Slots for images, over all calls.

    Args:
        count: images at once.
    """

    def __init__(self, count: int) -> None:
        self._slots = asyncio.Semaphore(count)

    @asynccontextmanager
    async def taken(self, deadline: Deadline) -> AsyncIterator[None]:
        """Hold a slot.

        Raises:
            TimeoutError: the deadline passed before a slot was free.
        """
        started = time.perf_counter()
        with metrics.IMAGES_WAITING.track_inprogress():
            async with asyncio.timeout(deadline.left):
                await self._slots.acquire()
        metrics.STAGE_SECONDS.labels("wait").observe(time.perf_counter() - started)
        try:
            with metrics.IMAGES_IN_FLIGHT.track_inprogress():
                yield
        finally:
            self._slots.release()
