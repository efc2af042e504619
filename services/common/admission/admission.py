"""Admission: what a server takes in at once, over all calls. It counts bytes that are received, calls and streams."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from services.common.admission.answers import Answers
from services.common.admission.budget import Budget
from services.common.admission.caller import caller_of
from services.common.admission.reading import Received, read_one
from services.common.admission.stream import Stream
from services.common.settings import CommonSettings

_RESERVE: Final = 9
"""Callers below their fair share keep one in so many parts of each budget."""
_LONGEST_WAIT_SECONDS: Final = 30.0
"""Longest time that a call waits for room for its message."""
_STUCK_SECONDS: Final = 5.0
"""A server that refuses calls for so long, while none of those under way ends, says NOT_SERVING."""
_PROBES: Final = 4
"""Largest messages that probes of health may hold; a true probe has some bytes."""
_PROBE_SECONDS: Final = 0.5
_Requests = AsyncIterator[Received]


class Admission:
    """Admits calls on their headers, before their messages take memory.

    Args:
        settings: how much to accept.
    """

    def __init__(self, settings: CommonSettings) -> None:
        self._settings = settings
        calls, streams, size = settings.max_concurrent_calls, settings.max_concurrent_streams, settings.received_bytes
        patience = settings.contended_seconds
        self._calls = Budget(calls, calls // _RESERVE, name="calls")
        self._streams = Budget(streams, streams // _RESERVE, patience, name="streams")
        self._bytes = Budget(size, max(size // _RESERVE, settings.max_message_bytes), patience, _LONGEST_WAIT_SECONDS, name="received bytes")
        self._probes = Budget(
            _PROBES * settings.max_message_bytes, settings.max_message_bytes, _PROBE_SECONDS, 10 * _PROBE_SECONDS, name="probe bytes"
        )

    @asynccontextmanager
    async def one(self, requests: _Requests, context: Any) -> AsyncIterator[tuple[Any, Answers]]:
        """A call of one message.

        Args:
            requests: the messages of the call.
            context: of the call.

        Yields:
            The message, and the answers to it.

        Raises:
            OverloadedError: OVERLOADED.
            DeadlineError: the message came too slowly.
            InvalidRequestError: there was no message, or it cannot be read.
        """
        caller = caller_of(context)
        held = await self._bytes.wait(caller, self._settings.max_message_bytes)
        answers = Answers(held, self._settings.answer_seconds)
        try:
            message = await read_one(requests, held, self._settings.message_seconds)
            slot = self._calls.take(caller, 1)
            try:
                yield message, answers
            finally:
                slot.release()
        finally:
            if not answers.is_sending:
                held.release()

    @asynccontextmanager
    async def many(self, requests: _Requests, context: Any) -> AsyncIterator[tuple[AsyncIterator[Any], Stream]]:
        """A stream.

        Args:
            requests: the messages of the stream.
            context: of the call.

        Yields:
            The messages, and the stream.

        Raises:
            OverloadedError: OVERLOADED.
        """
        slot = await self._streams.wait(caller_of(context), 1)
        stream = Stream(slot, self._settings.idle_seconds, self._settings.answer_seconds)
        try:
            yield stream.messages(requests), stream
        finally:
            if not stream.is_sending:
                slot.release()

    async def probe(self, requests: _Requests, context: Any) -> Any:
        """The message of a probe of health. Probes have room of their own, so that a busy server still says how it is.

        Raises:
            DomainError: as for ``one``.
        """
        held = await self._probes.wait(caller_of(context), self._settings.max_message_bytes)
        try:
            return await read_one(requests, held, self._settings.message_seconds)
        finally:
            held.release()

    @property
    def is_open(self) -> bool:
        """Whether calls are admitted, or the calls under way at least go on."""
        return max(budget.stuck_seconds for budget in (self._calls, self._streams, self._bytes)) < _STUCK_SECONDS
