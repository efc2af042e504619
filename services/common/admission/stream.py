"""A stream of a caller, which may not be silent for ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from services.common.admission.answers import Answers
from services.common.admission.budget import Holding
from services.common.admission.reading import NO_MESSAGE, Received, next_of
from services.common.errors import DeadlineError


class Stream:
    """Follows one stream. It is idle while it waits for a message and owes no answer; an idle stream is ended where others want its slot.

    Args:
        slot: the slot of the stream.
        idle_seconds: longest silence.
        answer_seconds: longest time for the caller to read an answer.
    """

    def __init__(self, slot: Holding, idle_seconds: float, answer_seconds: float) -> None:
        self._slot = slot
        self._idle_seconds = idle_seconds
        self._answers = Answers(slot, answer_seconds)
        self._last = time.monotonic()
        self._owed = 0
        self._is_reading = False
        self._unwanted = asyncio.Event()
        slot.end = self._unwanted.set

    async def messages(self, requests: AsyncIterator[Received]) -> AsyncIterator[Any]:
        """The messages of the caller.

        Raises:
            DeadlineError: STREAM_IDLE.
            InvalidRequestError: MESSAGE_UNREADABLE.
        """
        while (received := await self._next(requests)) is not NO_MESSAGE:
            self._owed += 1
            yield received.checked()

    @contextmanager
    def offered(self) -> Iterator[None]:
        """An answer, for the time until the caller has read it."""
        with self._answers.offered():
            yield
        self._last = time.monotonic()
        self._owed = max(0, self._owed - 1)
        self._slot.idle(self._is_idle)

    def last(self, context: Any) -> None:
        """The only answer of a stream; see ``Answers.last``."""
        self._answers.last(context)

    @property
    def is_sending(self) -> bool:
        """See ``Answers``."""
        return self._answers.is_sending

    @property
    def _is_idle(self) -> bool:
        return self._is_reading and not self._owed

    async def _next(self, requests: AsyncIterator[Received]) -> Any:
        reading, unwanted = asyncio.ensure_future(next_of(requests)), asyncio.ensure_future(self._unwanted.wait())
        self._last, self._is_reading = time.monotonic(), True
        self._slot.idle(self._is_idle)
        try:
            while not reading.done():
                left = self._last + self._idle_seconds - time.monotonic()
                if left <= 0.0 or unwanted.done():
                    text = "Nothing came on the stream for too long; open a new one when there is something to send."
                    raise DeadlineError("STREAM_IDLE", text)
                await asyncio.wait({reading, unwanted}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            return reading.result()
        finally:
            self._is_reading = False
            self._slot.idle(False)
            reading.cancel()
            unwanted.cancel()
