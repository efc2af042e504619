"""What a server takes in at once: messages, calls, streams and probes, each with room of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from services.common.admission import admission as admission_module
from services.common.admission.admission import Admission
from services.common.admission.reading import Received
from services.common.errors import DeadlineError, OverloadedError
from services.common.settings import MEBIBYTE, CommonSettings


class Context:
    def __init__(self, address: str = "ipv4:10.0.0.1:5") -> None:
        self._address = address
        self.done: list[Callable[[Any], None]] = []

    def peer(self) -> str:
        return self._address

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self.done.append(callback)


async def _message(text: str = "m", size: int = 1) -> AsyncIterator[Received]:
    yield Received(text, size)


async def _silence() -> AsyncIterator[Received]:
    await asyncio.sleep(60)
    yield Received("late", 1)


def _admission(**settings: Any) -> Admission:
    return Admission(CommonSettings(**settings))


async def test_a_call_gets_its_message_and_gives_everything_back() -> None:
    admission, context = _admission(max_concurrent_calls=1), Context()
    for _ in range(3):
        async with admission.one(_message("a"), context) as (message, answers):
            assert message == "a"
            answers.last(context)
        context.done.pop()(None)


async def test_calls_beyond_the_slots_are_refused_at_once_and_others_keep_the_reserve() -> None:
    admission = _admission(max_concurrent_calls=9)
    async with AsyncExitStack() as stack:
        for _ in range(8):
            await stack.enter_async_context(admission.one(_message(), Context()))
        with pytest.raises(OverloadedError):
            await stack.enter_async_context(admission.one(_message(), Context()))
        await stack.enter_async_context(admission.one(_message(), Context("ipv4:10.0.0.2:5")))


async def test_a_message_that_does_not_come_holds_no_slot_of_a_call() -> None:
    admission = _admission(max_concurrent_calls=1)
    context = admission.one(_silence(), Context())
    waiting = asyncio.create_task(context.__aenter__())
    await asyncio.sleep(0)
    async with admission.one(_message("b"), Context()) as (message, _):
        assert message == "b"
    waiting.cancel()


async def test_a_message_that_does_not_come_ends_for_one_that_waits_for_room() -> None:
    admission = _admission(max_message_bytes=MEBIBYTE, received_bytes=2 * MEBIBYTE, contended_seconds=0.02)
    slow = admission.one(_silence(), Context())
    ended = asyncio.create_task(slow.__aenter__())
    await asyncio.sleep(0)
    async with asyncio.timeout(10.0), admission.one(_message("b"), Context()) as (message, _):
        assert message == "b"
        with pytest.raises(DeadlineError):
            await ended


async def test_a_stream_that_says_nothing_ends_for_one_that_wants_its_slot() -> None:
    admission = _admission(max_concurrent_streams=1, contended_seconds=0.02)
    first = admission.many(_silence(), Context())
    messages, _ = await first.__aenter__()

    async def leave() -> None:
        with pytest.raises(DeadlineError):
            await anext(messages)
        await first.__aexit__(None, None, None)

    leaving = asyncio.create_task(leave())
    async with asyncio.timeout(10.0), admission.many(_message("b"), Context()) as (others, _):
        assert [m async for m in others] == ["b"]
    await leaving


async def test_probes_have_room_of_their_own() -> None:
    admission = _admission(max_message_bytes=MEBIBYTE, received_bytes=2 * MEBIBYTE, contended_seconds=60.0)
    full = admission.one(_silence(), Context())
    waiting = asyncio.create_task(full.__aenter__())
    await asyncio.sleep(0)
    async with asyncio.timeout(5.0):
        assert await admission.probe(_message("health"), Context()) == "health"
    waiting.cancel()


async def test_a_server_that_refuses_while_nothing_ends_is_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_module, "_STUCK_SECONDS", 0.01)
    admission = _admission(max_concurrent_calls=1)
    async with admission.one(_message(), Context()):
        assert admission.is_open
        with pytest.raises(OverloadedError):
            await admission.one(_message(), Context()).__aenter__()
        await asyncio.sleep(0.02)
        assert not admission.is_open
    assert admission.is_open
