"""The load test against gateways that are sound or broken in one way: which of them pass."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from dl4all.diagnosis.v1 import diagnosis_pb2
from tests.load.__main__ import ATTEMPTS
from tests.load.checks import checks_of, failures
from tests.load.fakes import Handler, answer, serving_target
from tests.load.measuring import Plan, measure
from tests.load.progress import Bars
from tests.load.results import WorkloadResult

PLAN = Plan(seconds=1.5, search_seconds=0.5, in_flight=(1, 2, 4), shares=(0.5, 0.7), arrivals="fixed")
_Request = diagnosis_pb2.DiagnoseRequest
_Response = diagnosis_pb2.DiagnoseResponse


def _sound() -> Handler:
    """Two servers that take 20 ms."""
    servers = asyncio.Semaphore(2)

    async def handle(request: _Request, context: Any) -> _Response:
        async with servers:
            await asyncio.sleep(0.02)
        return answer(1)

    return handle


def _refuses_each_third() -> Handler:
    sound, turn = _sound(), itertools.count()

    async def handle(request: _Request, context: Any) -> _Response:
        if next(turn) % 3 == 2:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        return await sound(request, context)

    return handle


def _stalls() -> Handler:
    """Sound while it is asked by few, and then for 0.4 s of each half second not at all."""
    sound, started = _sound(), time.monotonic()

    async def handle(request: _Request, context: Any) -> _Response:
        age = time.monotonic() - started
        if age > 4.0:
            await asyncio.sleep(max(0.0, 0.4 - age % 0.5))
        return await sound(request, context)

    return handle


def _slows_down() -> Handler:
    """Each answer takes a little longer than the last: nothing is freed."""
    turn = itertools.count()

    async def handle(request: _Request, context: Any) -> _Response:
        await asyncio.sleep(0.02 * 1.01 ** next(turn))
        return answer(1)

    return handle


def _answers_at_random() -> Handler:
    sound, turn = _sound(), itertools.count()

    async def handle(request: _Request, context: Any) -> _Response:
        await sound(request, context)
        return answer(2 if next(turn) % 50 == 49 else 1)

    return handle


async def _measured(made: Callable[[], Handler]) -> WorkloadResult:
    result = WorkloadResult("address", "fake")
    async with serving_target(made()) as target:
        with Bars(1.0) as bars:
            await measure(target, "fake", [b"one", b"two", b"three"], PLAN, bars, result)
    return result


async def test_a_sound_gateway_passes_with_its_capacity() -> None:
    """Once in three attempts is enough, as for the short form: this machine may do other work."""
    for _ in range(ATTEMPTS):
        result = await _measured(_sound)
        if not failures(checks_of(result)):
            break
    assert failures(checks_of(result)) == []
    assert result.capacity is not None
    assert result.capacity.rate <= 105.0, "two servers that take 20 ms answer 100 calls a second at most"
    assert [step.share for step in result.open] == [0.5, 0.7]


@pytest.mark.parametrize("made", [_refuses_each_third, _stalls, _slows_down, _answers_at_random])
async def test_a_broken_gateway_fails(made: Callable[[], Handler]) -> None:
    assert failures(checks_of(await _measured(made)))
