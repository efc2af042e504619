"""A caller who goes away at any stage: the work behind stops, and the metrics show it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial

import grpc
import pytest

from dl4all.classification.v1 import classification_pb2, classification_pb2_grpc
from dl4all.diagnosis.v1 import diagnosis_pb2_grpc
from dl4all_client import diagnose_request
from dl4all_client.channel import open_aio_channel
from services.common.parts import TRITON
from services.gateway.settings import GatewaySettings
from tests.running import Deceived, Running, Stack, eventually

STAGES = {
    "patching": ("/dl4all.patching.v1.PatchingService/LocateCells", ("preprocessing", "classification", "retrieval", TRITON)),
    "preprocessing": ("/dl4all.preprocessing.v1.PreprocessingService/Enhance", ("classification", "retrieval", TRITON)),
    "classification": ("/dl4all.classification.v1.ClassificationService/Classify", ("retrieval", TRITON)),
    TRITON: ("/inference.GRPCInferenceService/ModelInfer", ("retrieval",)),
    "retrieval": ("/dl4all.retrieval.v1.RetrievalService/Explain", ()),
}


@pytest.fixture(autouse=True)
def honest(deceived: Deceived) -> Iterator[None]:
    yield
    for impostor in deceived.impostors.values():
        impostor.honest()


def in_progress(running: Running) -> float:
    return running.metrics()("dl4all_requests_in_progress")


def is_idle(running: Running) -> bool:
    return in_progress(running) == 0


def cancelled(running: Running) -> float:
    return running.metrics()("dl4all_requests_total", code="CANCELLED")


@pytest.mark.parametrize("stage", STAGES)
async def test_at_every_stage(deceived: Deceived, phantom_cell: bytes, stage: str) -> None:
    method, later = STAGES[stage]
    for impostor in deceived.impostors.values():
        impostor.passed.clear()
        impostor.cancelled.clear()
    impostor = deceived.impostors[stage]
    impostor.delay = 30.0
    before = cancelled(deceived.gateway)
    async with open_aio_channel(deceived.gateway.address) as channel:
        call = diagnosis_pb2_grpc.DiagnosisServiceStub(channel).Diagnose(diagnose_request(phantom_cell), timeout=60)
        waiting = asyncio.ensure_future(call)
        await asyncio.to_thread(eventually, lambda: method in impostor.passed, 20, f"the call is at {stage}")
        assert in_progress(deceived.gateway) == 1
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    await asyncio.to_thread(eventually, lambda: method in impostor.cancelled, 5, f"{stage} hears of it")
    await asyncio.to_thread(eventually, lambda: in_progress(deceived.gateway) == 0, 5)
    assert cancelled(deceived.gateway) == before + 1
    assert in_progress(deceived.classification) == 0
    for name in later:
        assert not [m for m in deceived.impostors[name].passed if "Ready" not in m and "Config" not in m], name


async def test_while_it_waits_for_its_turn(deceived: Deceived, phantom_cell: bytes) -> None:
    slots = GatewaySettings().images_in_flight
    patching = deceived.impostors["patching"]
    patching.passed.clear()
    patching.delay = 30.0
    async with open_aio_channel(deceived.gateway.address) as channel:
        stub = diagnosis_pb2_grpc.DiagnosisServiceStub(channel)
        metrics = deceived.gateway.metrics
        judged = [stub.Diagnose(diagnose_request(phantom_cell), timeout=60) for _ in range(slots)]
        tasks = [asyncio.ensure_future(call) for call in judged]
        await asyncio.to_thread(eventually, lambda: metrics()("dl4all_images_in_flight") == slots, 20)
        waiting = [stub.Diagnose(diagnose_request(phantom_cell), timeout=60) for _ in range(3)]
        tasks += [asyncio.ensure_future(call) for call in waiting]
        await asyncio.to_thread(eventually, lambda: metrics()("dl4all_images_waiting") == 3, 20)
        for call in waiting:
            call.cancel()
        await asyncio.to_thread(eventually, lambda: metrics()("dl4all_images_waiting") == 0, 5)
        for call in judged:
            call.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.to_thread(eventually, lambda: in_progress(deceived.gateway) == 0, 5)
    now = metrics()
    assert (now("dl4all_images_waiting"), now("dl4all_images_in_flight")) == (0, 0)
    assert len(patching.passed) == slots


async def test_real_work_stops(stack: Stack, large_field: bytes) -> None:
    """Crops that wait for a thread are dropped, running crops are finished, and no further call is made."""
    preprocessing = stack["preprocessing"]
    before = preprocessing.metrics()
    async with open_aio_channel(stack["gateway"].address) as channel:
        call = diagnosis_pb2_grpc.DiagnosisServiceStub(channel).Diagnose(diagnose_request(large_field), timeout=60)
        waiting = asyncio.ensure_future(call)
        await asyncio.to_thread(eventually, lambda: preprocessing.metrics()("dl4all_work_waiting", stage="enhance") > 10, 30, "there is work")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    for name in ("gateway", "patching", "preprocessing", "classification", "retrieval"):
        await asyncio.to_thread(eventually, partial(is_idle, stack[name]), 5, f"{name} is idle")
    await asyncio.to_thread(eventually, lambda: preprocessing.metrics()("dl4all_work_running") == 0, 5)
    after = preprocessing.metrics()
    assert after("dl4all_work_waiting", stage="enhance") == 0
    assert after("dl4all_work_dropped_total", stage="enhance") - before("dl4all_work_dropped_total", stage="enhance") > 5
    done = "dl4all_work_seconds_count"
    await asyncio.sleep(0.5)
    assert preprocessing.metrics()(done, stage="enhance") == after(done, stage="enhance")


async def test_inferences_that_wait_in_triton_are_not_run(stack: Stack) -> None:
    cells, calls_at_once = 32, 20
    inferences = "nv_inference_count"
    before = stack[TRITON].metrics()(inferences)
    request = classification_pb2.ClassifyRequest(
        release="plain-resnet-1", cells=[classification_pb2.ClassifyCell(cell_id=n, pixels=bytes(128 * 128 * 3)) for n in range(cells)]
    )
    async with open_aio_channel(stack["classification"].address) as channel:
        stub = classification_pb2_grpc.ClassificationServiceStub(channel)
        calls = [stub.Classify(request, timeout=60) for _ in range(calls_at_once)]
        tasks = [asyncio.ensure_future(call) for call in calls]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for call in calls:
            call.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert any(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    await asyncio.to_thread(eventually, lambda: in_progress(stack["classification"]) == 0, 5)
    await asyncio.sleep(1.5)
    ran = stack[TRITON].metrics()(inferences) - before
    assert cells <= ran < cells * calls_at_once * 0.75
    async with open_aio_channel(stack["classification"].address) as channel:
        assert len((await classification_pb2_grpc.ClassificationServiceStub(channel).Classify(request, timeout=60)).cells) == cells


async def test_a_deadline_that_is_over_is_no_cancellation(stack: Stack, large_field: bytes) -> None:
    before = stack["gateway"].metrics()
    async with open_aio_channel(stack["gateway"].address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await diagnosis_pb2_grpc.DiagnosisServiceStub(channel).Diagnose(diagnose_request(large_field), timeout=0.3)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.to_thread(eventually, lambda: in_progress(stack["gateway"]) == 0, 5)
    name, labels = "dl4all_requests_total", {"method": "Diagnose", "code": "DEADLINE_EXCEEDED"}
    assert stack["gateway"].metrics()(name, **labels) == before(name, **labels) + 1
