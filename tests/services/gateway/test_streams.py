"""Many requests at once, without any message: order, window, identifiers, failures and cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

import pytest

from services.common.admission.budget import Budget, Holding
from services.common.admission.caller import Caller
from services.common.errors import DomainError
from services.gateway.streams import answered

Request = tuple[str, str]


class Answers:
    """Answers requests ``(identifier, content)``; each waits until its gate opens."""

    def __init__(self, *requests: Request, waits: Sequence[str] = (), window: int = 2, raises: Exception | None = None, room: int = 10**6) -> None:
        self.requests, self.window, self.raises = requests, window, raises
        self.room = Budget(room, 0, longest_wait=0.2)
        self.gates = {name: asyncio.Event() for name in waits}
        self.read: list[Request] = []
        self.ended: list[str] = []

    async def _incoming(self) -> AsyncIterator[Request]:
        for request in self.requests:
            self.read.append(request)
            yield request
            await asyncio.sleep(0)
        if self.raises is not None:
            raise self.raises

    async def _answer(self, request: Request) -> str:
        try:
            if request[0] in self.gates:
                await self.gates[request[0]].wait()
            return f"{request[0]}: {request[1]}"
        finally:
            self.ended.append(request[0])

    async def taken(self, request: Request) -> Holding:
        return await self.room.wait(Caller("a"), len(request[1]))

    def unread(self, holding: Holding, answer: str) -> None:
        holding.resize(len(answer))

    async def _refuse(self, request: Request, error: DomainError) -> str:
        return f"{request[0]}: {error.reason}"

    async def stream(self) -> AsyncGenerator[str, None]:
        """The answers; a stream that stops fails."""
        stream = answered(self._incoming(), lambda request: request[0], self._answer, self._refuse, self, self.window)
        async with aclosing(stream):
            while True:
                async with asyncio.timeout(10):
                    try:
                        answer = await anext(stream)
                    except StopAsyncIteration:
                        return
                yield answer


async def _settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_what_is_done_first_is_answered_first() -> None:
    answers = Answers(("a", "1"), ("b", "2"), waits=["a"])
    stream = answers.stream()
    assert await anext(stream) == "b: 2"
    answers.gates["a"].set()
    assert [answer async for answer in stream] == ["a: 1"]


async def test_no_more_is_read_than_the_window_holds_until_answers_are_taken() -> None:
    answers = Answers(*((str(n), "") for n in range(6)), window=2)
    stream = answers.stream()
    first = asyncio.ensure_future(anext(stream))
    await _settle()
    assert await first
    await _settle()
    assert len(answers.read) <= 3, "the third waits for a slot"
    taken = [answer async for answer in stream]
    assert len(taken) == 5


async def test_an_identifier_that_is_missing_or_in_flight_is_refused_and_the_others_go_on() -> None:
    answers = Answers(("a", "1"), ("a", "2"), ("", "3"), ("b", "4"), waits=["a"], window=4)
    stream = answers.stream()
    found = [await anext(stream) for _ in range(3)]
    assert set(found) == {"a: REQUEST_ID_IN_FLIGHT", ": REQUEST_ID_MISSING", "b: 4"}
    answers.gates["a"].set()
    assert [answer async for answer in stream] == ["a: 1"]


async def test_an_identifier_is_free_again_once_it_is_answered() -> None:
    answers = Answers(("a", "1"), ("a", "2"), window=1)
    assert [answer async for answer in answers.stream()] == ["a: 1", "a: 2"]


async def test_what_the_requests_raise_ends_the_stream_and_what_is_under_way() -> None:
    answers = Answers(("a", "1"), waits=["a"], raises=ConnectionError("gone"))
    with pytest.raises(ConnectionError):
        await anext(answers.stream())
    await _settle()
    assert answers.ended == ["a"], "cancelled"


async def test_a_caller_who_goes_away_ends_what_is_under_way() -> None:
    answers = Answers(("a", "1"), ("b", "2"), waits=["a"])
    stream = answers.stream()
    assert await anext(stream) == "b: 2"
    await stream.aclose()
    await _settle()
    assert answers.ended == ["b", "a"]


async def test_nothing_in_nothing_out() -> None:
    assert [answer async for answer in Answers().stream()] == []


async def test_requests_and_unread_answers_hold_room_until_they_are_read() -> None:
    answers = Answers(("a", "x" * 40), ("b", "y" * 40), ("c", "z" * 40), window=3, room=100)
    async with aclosing(answers.stream()) as stream:
        assert (await anext(stream)).startswith("a")
        await _settle()
        assert answers.room.held == 43 + 43, "the answers of a and b, three characters longer than what was asked"
        assert [name for name, _ in answers.read] == ["a", "b", "c"]
        assert "c" not in answers.ended, "there is no room for c before an answer has been read"
        assert [(await anext(stream))[0], (await anext(stream))[0]] == ["b", "c"]
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    assert answers.room.held == 0


async def test_a_request_without_room_is_refused_and_the_stream_goes_on() -> None:
    answers = Answers(("a", "x" * 90), ("b", "y" * 90), waits=("a",), room=100)
    async with aclosing(answers.stream()) as stream:
        assert await anext(stream) == "b: OVERLOADED"
        answers.gates["a"].set()
        assert (await anext(stream)).startswith("a")


async def test_a_stream_that_is_left_gives_its_room_back() -> None:
    answers = Answers(("a", "x" * 40), ("b", "y" * 40), waits=("b",), room=100)
    async with aclosing(answers.stream()) as stream:
        await anext(stream)
        await _settle()
        assert answers.room.held > 0
    await _settle()
    assert answers.room.held == 0
