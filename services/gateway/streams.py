"""Many requests at once, in a window: answers come in any order, and one bad request never ends the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from services.common.admission.budget import Holding
from services.common.errors import AlreadyExistsError, DomainError, InvalidRequestError, OverloadedError

Request = TypeVar("Request")
Answer = TypeVar("Answer")
_Taken = TypeVar("_Taken", contravariant=True)
_Found = TypeVar("_Found", contravariant=True)


class StreamRoom(Protocol[_Taken, _Found]):
    """Memory that streams share."""

    async def taken(self, request: _Taken) -> Holding:
        """Room for a request, as soon as there is some.

        Raises:
            OverloadedError: there was none for long.
        """

    def unread(self, holding: Holding, answer: _Found) -> None:
        """The request is answered, and its room holds the answer until the caller has read it."""


@dataclass(frozen=True)
class _Ready(Generic[Answer]):
    answer: Answer
    holding: Holding | None = None


async def answered(
    requests: AsyncIterator[Request],
    identify: Callable[[Request], str],
    answer: Callable[[Request], Awaitable[Answer]],
    refuse: Callable[[Request, DomainError], Awaitable[Answer]],
    room: StreamRoom[Request, Answer],
    window: int,
) -> AsyncGenerator[Answer, None]:
    """Answer requests and yield the answers, in any order.

    A slot of the window frees when the caller has read the answer (back-pressure). No further request of a caller who does not read is taken.

    Args:
        requests: the incoming requests.
        identify: the identifier of a request, which must be set and not be in flight.
        answer: answers one request; a failure of one request is part of its answer.
        refuse: the answer to a request whose identifier is missing or in flight.
        room: memory that the streams share.
        window: most requests that are read and not yet answered.

    Raises:
        BaseException: raised by the requests or by ``answer``.
    """
    done: asyncio.Queue[_Ready[Answer] | BaseException | None] = asyncio.Queue()
    slots = asyncio.Semaphore(window)
    held: set[Holding] = set()
    reader = asyncio.create_task(_read(requests, identify, answer, refuse, room, done, slots, held))
    try:
        while (ready := await done.get()) is not None:
            if isinstance(ready, BaseException):
                raise ready
            yield ready.answer
            if ready.holding is not None:
                ready.holding.release()
                held.discard(ready.holding)
            slots.release()
    finally:
        reader.cancel()
        for holding in held:
            holding.release()


async def _read(
    requests: AsyncIterator[Request],
    identify: Callable[[Request], str],
    answer: Callable[[Request], Awaitable[Answer]],
    refuse: Callable[[Request, DomainError], Awaitable[Answer]],
    room: StreamRoom[Request, Answer],
    done: asyncio.Queue[_Ready[Answer] | BaseException | None],
    slots: asyncio.Semaphore,
    held: set[Holding],
) -> None:
    in_flight: dict[str, asyncio.Task[None]] = {}

    async def answer_one(name: str, request: Request, holding: Holding) -> None:
        try:
            found = await answer(request)
            room.unread(holding, found)
            await done.put(_Ready(found, holding))
        finally:
            in_flight.pop(name, None)

    async def refuse_one(request: Request, error: DomainError) -> None:
        await done.put(_Ready(await refuse(request, error)))

    try:
        async for request in requests:
            await slots.acquire()
            name = identify(request)
            if not name:
                missing = InvalidRequestError("REQUEST_ID_MISSING", "Every image of a stream needs a request_id.", field="request_id")
                await refuse_one(request, missing)
            elif name in in_flight:
                taken = AlreadyExistsError("REQUEST_ID_IN_FLIGHT", "This request_id is in flight in this stream.", field="request_id")
                await refuse_one(request, taken)
            else:
                try:
                    holding = await room.taken(request)
                except OverloadedError as error:
                    await refuse_one(request, error)
                    continue
                held.add(holding)
                in_flight[name] = asyncio.create_task(answer_one(name, request, holding))
        while in_flight:
            await asyncio.gather(*in_flight.values())
        await done.put(None)
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # handed to the caller of the stream, who raises it
        await done.put(error)
    finally:
        for task in list(in_flight.values()):
            task.cancel()
