"""Many requests at once, a window at a time: read as answers are taken, answered in any order, one bad request never ends the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TypeVar

from services.common.errors import AlreadyExistsError, DomainError, InvalidRequestError

Request = TypeVar("Request")
Answer = TypeVar("Answer")


async def answered(
    requests: AsyncIterator[Request],
    identify: Callable[[Request], str],
    answer: Callable[[Request], Awaitable[Answer]],
    refuse: Callable[[Request, DomainError], Awaitable[Answer]],
    window: int,
) -> AsyncGenerator[Answer, None]:
    """Answer what comes in and yield what is done, in any order.

    A slot of the window frees when the caller has taken the answer (back-pressure): from a caller who does not read, no more is read.

    Args:
        requests: what comes in.
        identify: the identifier of a request, which must be set and not be in flight.
        answer: answers one request; what fails of one request is part of its answer.
        refuse: the answer to a request whose identifier is missing or in flight.
        window: requests that are read and not yet answered, at most.

    Raises:
        BaseException: what the requests raised, or what ``answer`` raised.
    """
    done: asyncio.Queue[Answer | BaseException | None] = asyncio.Queue()
    slots = asyncio.Semaphore(window)
    reader = asyncio.create_task(_read(requests, identify, answer, refuse, done, slots))
    try:
        while (ready := await done.get()) is not None:
            if isinstance(ready, BaseException):
                raise ready
            yield ready
            slots.release()
    finally:
        reader.cancel()


async def _read(
    requests: AsyncIterator[Request],
    identify: Callable[[Request], str],
    answer: Callable[[Request], Awaitable[Answer]],
    refuse: Callable[[Request, DomainError], Awaitable[Answer]],
    done: asyncio.Queue[Answer | BaseException | None],
    slots: asyncio.Semaphore,
) -> None:
    in_flight: dict[str, asyncio.Task[None]] = {}

    async def answer_one(name: str, request: Request) -> None:
        try:
            await done.put(await answer(request))
        finally:
            in_flight.pop(name, None)

    try:
        async for request in requests:
            await slots.acquire()
            name = identify(request)
            if not name:
                missing = InvalidRequestError("REQUEST_ID_MISSING", "Every image of a stream needs a request_id.", field="request_id")
                await done.put(await refuse(request, missing))
            elif name in in_flight:
                taken = AlreadyExistsError("REQUEST_ID_IN_FLIGHT", "This request_id is in flight in this stream.", field="request_id")
                await done.put(await refuse(request, taken))
            else:
                in_flight[name] = asyncio.create_task(answer_one(name, request))
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
