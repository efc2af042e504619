"""Many requests at once, in a window: answers come in any order, and one bad request never ends the others."""

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
    """Answer requests and yield the answers, in any order.

    A slot of the window frees when the caller has read the answer (back-pressure). No further request of a caller who does not read is taken.

    Args:
        requests: the incoming requests.
        identify: the identifier of a request, which must be set and not be in flight.
        answer: answers one request; a failure of one request is part of its answer.
        refuse: the answer to a request whose identifier is missing or in flight.
        window: most requests that are read and not yet answered.

    Raises:
        BaseException: raised by the requests or by ``answer``.
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
