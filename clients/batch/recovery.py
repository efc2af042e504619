"""Wait until a gateway is ready again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from clients.batch.errors import GatewayNotReadyError

PATIENCE_SECONDS: Final = 600.0
"""Longest time without a finished image before a worker gives up; the batch can be resumed."""
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 10.0


class Recovery:
    """Holds all streams of a worker back while the gateway is not ready.

    Args:
        is_ready: whether the gateway can use a release now.
        patience: seconds without a finished image before the worker gives up.
    """

    def __init__(self, is_ready: Callable[[str], Awaitable[bool]], patience: float = PATIENCE_SECONDS) -> None:
        self._is_ready = is_ready
        self._patience = patience
        self._waiting = asyncio.Lock()
        self._open = asyncio.Event()
        self._open.set()
        self._progress = time.monotonic()
        self._pause = _FIRST_PAUSE
        self._recovered = 0.0
        self._held_until = 0.0

    async def passed(self) -> None:
        """Wait while the gateway is known not to be ready, or has asked for a pause."""
        while True:
            await self._open.wait()
            left = self._held_until - time.monotonic()
            if left <= 0.0:
                return
            await asyncio.sleep(left)

    def progressed(self) -> None:
        """An image was finished."""
        self._progress = time.monotonic()
        self._pause = _FIRST_PAUSE

    def hold(self, seconds: float) -> None:
        """Hold everything back for some time, as the gateway asked.

        Raises:
            GatewayNotReadyError: nothing was finished for too long.
        """
        self._check("it refuses all images")
        self._held_until = max(self._held_until, time.monotonic() + seconds)

    async def wait(self, release: str, reason: str, since: float) -> None:
        """Hold everything back until the gateway can use a release.

        Args:
            release: release id.
            reason: what the gateway answered, for the message.
            since: when the image was sent that failed, seconds of ``time.monotonic``. If the gateway has recovered since, nothing is waited for.

        Raises:
            GatewayNotReadyError: it took too long.
        """
        async with self._waiting:
            if since < self._recovered:
                return
            self._open.clear()
            try:
                while True:
                    await asyncio.sleep(self._pause)
                    self._pause = min(_LONGEST_PAUSE, 2.0 * self._pause)
                    if await self._is_ready(release):
                        self._recovered = time.monotonic()
                        return
                    self._check(reason)
            finally:
                self._open.set()

    def _check(self, reason: str) -> None:
        silent = time.monotonic() - self._progress
        if silent > self._patience:
            text = f"The gateway finished no image for {silent:.0f} s ({reason}). What is finished is kept; go on with `dl4all batch resume`."
            raise GatewayNotReadyError(text)
