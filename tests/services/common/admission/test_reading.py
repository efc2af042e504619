"""The one message of a call: in time, readable, and no more room than it takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from dl4all.diagnosis.v1 import diagnosis_pb2
from services.common.admission.budget import Budget
from services.common.admission.caller import Caller
from services.common.admission.reading import Received, read_one, receiving
from services.common.errors import DeadlineError, InvalidRequestError


async def _messages(*messages: Received, waits: float = 0.0) -> AsyncIterator[Received]:
    await asyncio.sleep(waits)
    for message in messages:
        yield message


async def test_room_shrinks_to_the_size_of_the_message() -> None:
    held = Budget(1000, 0).take(Caller("a"), 900)
    assert await read_one(_messages(Received("m", 12)), held, 1.0) == "m"
    assert (held.amount, held.end, held.idle_since) == (12, None, None)


async def test_a_message_that_does_not_come_in_time() -> None:
    held = Budget(1000, 0).take(Caller("a"), 900)
    with pytest.raises(DeadlineError, match="in time") as caught:
        await read_one(_messages(waits=60.0), held, 0.01)
    assert caught.value.reason == "MESSAGE_TOO_SLOW"


async def test_others_who_want_the_room_end_the_reading() -> None:
    budget = Budget(1000, 0, patience=0.01)
    held = budget.take(Caller("a"), 900)

    async def slow() -> None:
        with pytest.raises(DeadlineError):
            await read_one(_messages(waits=60.0), held, 60.0)
        held.release()

    reading = asyncio.create_task(slow())
    await asyncio.sleep(0)
    async with asyncio.timeout(10.0):
        await budget.wait(Caller("b"), 900)
        await reading


async def test_a_call_without_a_message() -> None:
    held = Budget(1000, 0).take(Caller("a"), 900)
    with pytest.raises(InvalidRequestError) as caught:
        await read_one(_messages(), held, 1.0)
    assert caught.value.reason == "MESSAGE_MISSING"


@given(st.binary(max_size=200))
def test_whatever_comes_is_a_message_or_a_typed_refusal(data: bytes) -> None:
    received = receiving(diagnosis_pb2.DiagnoseRequest.FromString)(data)
    assert received.size == len(data)
    try:
        expected = diagnosis_pb2.DiagnoseRequest.FromString(data)
    except DecodeError:
        with pytest.raises(InvalidRequestError) as caught:
            received.checked()
        assert caught.value.reason == "MESSAGE_UNREADABLE"
    else:
        assert received.checked() == expected


def test_messages_without_a_form_stay_bytes() -> None:
    assert receiving(None)(b"abc").checked() == b"abc"
