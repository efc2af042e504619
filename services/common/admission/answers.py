"""Answers that a caller must read: an answer that stays unread holds memory, and gRPC never gives up on it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import structlog

from services.common.admission.budget import Holding
from services.common.admission.connections import disconnect

_log = structlog.get_logger("dl4all")


class Answers:
    """The answers of one call.

    A caller that does not read an answer in time loses its connection. It loses it earlier where others want what the call holds.

    Args:
        holding: what the call holds.
        seconds: longest time for the caller to read an answer.
    """

    def __init__(self, holding: Holding, seconds: float) -> None:
        self._holding = holding
        self._seconds = seconds
        self.is_sending = False
        """Whether the server still sends the last answer, and what the call holds is released after it."""

    @contextmanager
    def offered(self) -> Iterator[None]:
        """One answer of several, for the time until the caller has read it."""
        before = self._holding.end
        timer = self._expect()
        try:
            yield
        finally:
            timer.cancel()
            self._holding.end = before
            self._holding.idle(False)

    def last(self, context: Any) -> None:
        """The only answer of a call, which the server sends when the handler has returned. What the call holds is released when it was read."""
        self.is_sending = True
        timer = self._expect()

        def read(_: Any) -> None:
            timer.cancel()
            self._holding.release()

        context.add_done_callback(read)

    def sized(self, size: int) -> None:
        """The last answer has so many bytes."""
        if self.is_sending and self._holding.amount:
            self._holding.resize(max(1, size))

    def _expect(self) -> asyncio.TimerHandle:
        give_up = partial(_give_up, self._holding.caller.peer)
        self._holding.end = give_up
        self._holding.idle()
        return asyncio.get_running_loop().call_later(self._seconds, give_up)


def _give_up(peer: str) -> None:
    _log.warning("an answer was not read in time; the connection is closed", peer=peer, closed=disconnect(peer))
