"""Read the messages of callers: each within a time, and readable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError

from services.common.admission.budget import Holding
from services.common.errors import DeadlineError, InvalidRequestError

_UNREADABLE: Final = object()
NO_MESSAGE: Final = object()


@dataclass(frozen=True)
class Received:
    """A message as it came.

    Attributes:
        message: the message, or a mark where protobuf cannot read it.
        size: bytes on the wire.
    """

    message: Any
    size: int

    def checked(self) -> Any:
        """The message.

        Raises:
            InvalidRequestError: MESSAGE_UNREADABLE.
        """
        if self.message is _UNREADABLE:
            raise InvalidRequestError("MESSAGE_UNREADABLE", "Protobuf cannot read the message; send one of the contract.")
        return self.message


class Messages:
    """The messages of a call, each read when it is asked for. gRPC's own iterator is a generator that asyncio must close after the call.

    Args:
        context: of the call.
    """

    def __init__(self, context: Any) -> None:
        self._context = context

    def __aiter__(self) -> AsyncIterator[Received]:
        return self

    async def __anext__(self) -> Received:
        received = await self._context.read()
        if received is grpc.aio.EOF:
            raise StopAsyncIteration
        return received  # type: ignore[no-any-return]


def receiving(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Received]:
    """A deserializer that never fails; gRPC would answer UNKNOWN with the name of a class."""

    def read(data: bytes) -> Received:
        try:
            return Received(data if deserialize is None else deserialize(data), len(data))
        except DecodeError:
            return Received(_UNREADABLE, len(data))

    return read


async def read_one(requests: AsyncIterator[Received], holding: Holding, seconds: float) -> Any:
    """Read the one message of a call into room that is held, and shrink the room to its size.

    Args:
        requests: the messages of the call.
        holding: room for the largest message; others who want the room may end the reading.
        seconds: that the message may take.

    Raises:
        DeadlineError: MESSAGE_TOO_SLOW.
        InvalidRequestError: MESSAGE_MISSING or MESSAGE_UNREADABLE.
    """
    try:
        async with asyncio.timeout(seconds) as limit:
            holding.end = lambda: limit.reschedule(0.0)
            holding.idle()
            received = await next_of(requests)
    except TimeoutError as error:
        raise DeadlineError("MESSAGE_TOO_SLOW", "The message did not arrive in time; send it faster, or fewer at once.") from error
    finally:
        holding.end = None
        holding.idle(False)
    if received is NO_MESSAGE:
        raise InvalidRequestError("MESSAGE_MISSING", "The call ended without a message.")
    holding.resize(max(1, received.size))
    return received.checked()


async def next_of(requests: AsyncIterator[Received]) -> Any:
    """The next message, or ``NO_MESSAGE`` at the end."""
    return await anext(requests, NO_MESSAGE)
