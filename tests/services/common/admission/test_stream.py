"""A stream may not be silent for ever, and is ended earlier where others want its slot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.common.admission.budget import Budget
from services.common.admission.caller import Caller
from services.common.admission.reading import Received
from services.common.admission.stream import Stream
from services.common.errors import DeadlineError


async def _messages(*texts: str, silent: bool = False) -> AsyncIterator[Received]:
    for text in texts:
        yield Received(text, len(text))
    if silent:
        await asyncio.sleep(60)


async def test_all_messages_come() -> None:
    stream = Stream(Budget(2, 0).take(Caller("a"), 1), 10.0, 10.0)
    assert [m async for m in stream.messages(_messages("a", "b"))] == ["a", "b"]


async def test_silence_ends() -> None:
    stream = Stream(Budget(2, 0).take(Caller("a"), 1), 0.05, 10.0)
    messages = stream.messages(_messages("a", silent=True))
    assert await anext(messages) == "a"
    with pytest.raises(DeadlineError) as caught:
        await anext(messages)
    assert caught.value.reason == "STREAM_IDLE"


async def test_a_stream_that_owes_nothing_is_ended_for_others() -> None:
    budget = Budget(1, 0, patience=0.01)
    slot = budget.take(Caller("a"), 1)
    stream = Stream(slot, 60.0, 60.0)

    async def read() -> None:
        messages = stream.messages(_messages("a", silent=True))
        await anext(messages)
        with stream.offered():
            pass
        with pytest.raises(DeadlineError):
            await anext(messages)
        slot.release()

    reading = asyncio.create_task(read())
    async with asyncio.timeout(10.0):
        await budget.wait(Caller("b"), 1)
        await reading


async def test_a_stream_that_owes_an_answer_is_left_alone() -> None:
    budget = Budget(1, 0, patience=0.01, longest_wait=0.1)
    slot = budget.take(Caller("a"), 1)
    stream = Stream(slot, 60.0, 60.0)

    async def read() -> None:
        async for _ in stream.messages(_messages("a", silent=True)):
            pass

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    with pytest.raises(Exception, match="as much work"):
        await budget.wait(Caller("b"), 1)
    assert not reading.done()
    reading.cancel()


async def test_an_offered_answer_makes_the_stream_wait_for_its_caller() -> None:
    slot = Budget(1, 0).take(Caller("a"), 1)
    stream = Stream(slot, 60.0, 60.0)
    with stream.offered():
        assert slot.idle_since is not None
    assert slot.idle_since is None
