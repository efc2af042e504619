"""The closed loop waits for answers, the open loop does not; and what a caller makes of the end of a call."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from dl4all.diagnosis.v1 import diagnosis_pb2
from tests.load.arrivals import fixed
from tests.load.calls import BATCH, INTERACTIVE, Call, Outcome
from tests.load.fakes import answer, serving
from tests.load.figures import percentile
from tests.load.loops import closed_loop, open_loop


async def _at_once(request: diagnosis_pb2.DiagnoseRequest, context: Any) -> diagnosis_pb2.DiagnoseResponse:
    return answer(len(request.image))


async def test_an_answer_is_counted_with_its_cells() -> None:
    async with serving(_at_once) as (caller, _):
        call = await caller.call(caller.now)
    assert (call.outcome, call.code, call.cells, call.priority) == (Outcome.ANSWERED, "OK", 3, INTERACTIVE)
    assert 0.0 < call.latency < 5.0


async def test_another_answer_to_the_same_image_is_wrong() -> None:
    turn = iter((4, 4, 4, 5))

    async def unsure(request: diagnosis_pb2.DiagnoseRequest, context: Any) -> diagnosis_pb2.DiagnoseResponse:
        return answer(next(turn))

    async with serving(unsure) as (caller, _):
        found = [(await caller.call(0.0)).outcome for _ in range(4)]
    assert found == [Outcome.ANSWERED, Outcome.ANSWERED, Outcome.ANSWERED, Outcome.WRONG]


@pytest.mark.parametrize("with_reason", [True, False])
async def test_a_refusal_needs_a_reason(with_reason: bool) -> None:
    details = [error_details_pb2.RetryInfo(retry_delay=Duration(nanos=250_000_000))]
    packed = [_packed(detail) for detail in [*details, *([error_details_pb2.ErrorInfo(reason="OVERLOADED")] if with_reason else [])]]
    status = status_pb2.Status(code=code_pb2.RESOURCE_EXHAUSTED, message="full", details=packed)

    async def refuse(request: diagnosis_pb2.DiagnoseRequest, context: Any) -> diagnosis_pb2.DiagnoseResponse:
        assert request.priority == BATCH
        await context.abort_with_status(rpc_status.to_status(status))
        raise AssertionError

    async with serving(refuse) as (caller, _):
        call = await caller.call(caller.now, BATCH)
    assert call.outcome is (Outcome.REFUSED if with_reason else Outcome.LOST)
    assert call.retry_seconds == 0.25
    assert call.code == "RESOURCE_EXHAUSTED"


async def test_a_call_without_an_end_is_lost_at_its_deadline() -> None:
    async def never(request: diagnosis_pb2.DiagnoseRequest, context: Any) -> diagnosis_pb2.DiagnoseResponse:
        await asyncio.sleep(60)
        raise AssertionError

    async with serving(never, timeout=0.2) as (caller, _):
        call = await caller.call(caller.now)
    assert (call.outcome, call.code) == (Outcome.LOST, "DEADLINE_EXCEEDED")


async def test_the_closed_loop_has_so_many_calls_in_flight() -> None:
    async def slowly(request: diagnosis_pb2.DiagnoseRequest, context: Any) -> diagnosis_pb2.DiagnoseResponse:
        await asyncio.sleep(0.02)
        return answer(1)

    calls: list[Call] = []
    async with serving(slowly) as (caller, gateway):
        await closed_loop(caller, 3, 0.5, calls.append)
    assert gateway.most == 3
    assert len(calls) >= 6


async def test_the_open_loop_sends_on_while_the_server_stalls_and_counts_the_waiting() -> None:
    """A server that stalls for half a second: a loop that waits for answers would see one slow call, and hide that many had to wait."""

    async def stall(request: diagnosis_pb2.DiagnoseRequest, context: Any) -> diagnosis_pb2.DiagnoseResponse:
        await asyncio.sleep(max(0.0, ready - time.monotonic()))
        return answer(1)

    calls: list[Call] = []
    async with serving(stall) as (caller, gateway):
        await caller.call(0.0)
        caller.start()
        ready = time.monotonic() + 0.5
        await open_loop(caller, fixed(100.0, 1.0), calls.append)
    assert len(calls) == 100
    assert gateway.most >= 30
    latencies = [call.latency for call in calls]
    assert percentile(latencies, 0.75) > 0.2
    assert [call.intended for call in sorted(calls, key=lambda call: call.intended)] == list(fixed(100.0, 1.0))


async def test_a_fault_of_the_generator_itself_ends_the_loop() -> None:
    async with serving(_at_once) as (caller, _):

        def keep(call: Call) -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await open_loop(caller, fixed(20.0, 0.5), keep)


def _packed(message: Any) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
