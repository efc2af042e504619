"""Five processes and a Triton at work: metrics, batching, overload."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import grpc
import numpy as np
import pytest
import tritonclient.grpc as tritonclient
from tritonclient.utils import InferenceServerException

from dl4all.classification.v1 import classification_pb2, classification_pb2_grpc
from dl4all.diagnosis.v1 import diagnosis_pb2, diagnosis_pb2_grpc
from dl4all_client import DiagnosisClient, ServiceError, diagnose_request
from dl4all_client.channel import open_aio_channel
from services.common.parts import SERVICES, TRITON
from tests.running import Metrics, Running, Stack, eventually


class Difference:
    """Increase of the metrics of a page over some work."""

    def __init__(self, running: Running) -> None:
        self._running, self._before = running, running.metrics()

    def __call__(self, name: str, **labels: str) -> float:
        now: Metrics = self._running.metrics()
        return now(name, **labels) - self._before(name, **labels)


def test_metrics_say_what_was_done(stack: Stack, phantom_field: bytes) -> None:
    gained = {name: Difference(running) for name, running in stack.parts.items()}
    with DiagnosisClient(stack["gateway"].address) as client:
        diagnosis = client.diagnose(phantom_field, request_id="counted")
    cells = len(diagnosis.cells)
    release = diagnosis.provenance.release
    gateway = gained["gateway"]
    assert gateway("dl4all_requests_total", method="Diagnose", code="OK") == 1
    assert gateway("dl4all_request_seconds_count", method="Diagnose") == 1
    for stage in ("wait", "locate", "enhance", "classify", "explain"):
        assert gateway("dl4all_stage_seconds_count", stage=stage) >= 1, stage
    assert gateway("dl4all_cells_total", release=release) == cells
    for verdict in ("suspected", "indeterminate", "not_suspected"):
        assert gateway("dl4all_cells_total", release=release, verdict=verdict) == getattr(diagnosis.counts, verdict)
    assert gateway("dl4all_image_cells_sum") == cells
    assert gateway("dl4all_findings_total", release=release, finding="INDETERMINATE") == 1
    for reason in diagnosis.reasons:
        assert gateway("dl4all_finding_reasons_total", reason=reason) == 1
    reasons = [reason for cell in diagnosis.cells if cell.indeterminate for reason in cell.reasons]
    assert gateway("dl4all_cell_abstentions_total") == len(reasons)
    assert gained["patching"]("dl4all_work_seconds_count", stage="locate") == 2, "before the network and after it"
    assert gained["patching"]("dl4all_inference_seconds_count", engine="triton") == 1
    assert gained["preprocessing"]("dl4all_work_seconds_count", stage="enhance") == cells
    assert gained["preprocessing"]("dl4all_work_cpu_seconds_total", stage="enhance") > 0
    assert gained["classification"]("dl4all_inference_batch_size_sum", engine="triton") == cells
    assert gained["classification"]("dl4all_inference_seconds_count", engine="triton") == 1
    assert gained["retrieval"]("dl4all_requests_total", method="Explain", code="OK") == 1
    for name in SERVICES:
        assert stack[name].metrics()("process_resident_memory_bytes") > 0


def test_an_image_is_located_once_and_its_cells_are_one_inference(stack: Stack, phantom_field: bytes) -> None:
    triton = Difference(stack[TRITON])
    with DiagnosisClient(stack["gateway"].address) as client:
        cells = len(client.diagnose(phantom_field).cells)
    assert cells > 5
    eventually(lambda: triton("nv_inference_count") >= cells + 1, what="Triton counts a batch after it has answered it")
    assert triton("nv_inference_request_success") == 2
    assert triton("nv_inference_count") == cells + 1


async def test_triton_batches_across_images(stack: Stack) -> None:
    """Classification is called directly: on two cores location is the bottleneck, and Triton would have nothing to put together."""
    triton = Difference(stack[TRITON])
    count = 60
    random = np.random.default_rng(0)
    cells = [classification_pb2.ClassifyCell(cell_id=n, pixels=random.bytes(128 * 128 * 3)) for n in range(count)]

    def of(*chosen: classification_pb2.ClassifyCell) -> classification_pb2.ClassifyRequest:
        return classification_pb2.ClassifyRequest(release="plain-resnet-1", cells=chosen)

    async with open_aio_channel(stack["classification"].address) as channel:
        stub = classification_pb2_grpc.ClassificationServiceStub(channel)
        alone = [(await stub.Classify(of(cell), timeout=60)).cells[0] for cell in cells]
        at_once = await asyncio.gather(*(stub.Classify(of(cell), timeout=60) for cell in cells))
    for one, answer in zip(alone, at_once, strict=True):
        np.testing.assert_allclose(answer.cells[0].embedding, one.embedding, atol=1e-5)
    eventually(lambda: triton("nv_inference_request_success") >= 2 * count, what="Triton counts a batch after it has answered it")
    assert triton("nv_inference_count") == triton("nv_inference_request_success") == 2 * count
    assert triton("nv_inference_exec_count") < 2 * count, "each of those that came alone was one execution"


async def test_overload_is_refused_fast_and_what_was_accepted_is_finished(stack: Stack, phantom_field: bytes) -> None:
    at_once, sent = 16, 100
    gained = Difference(stack["gateway"])
    refused_after = []

    async def one(stub: diagnosis_pb2_grpc.DiagnosisServiceAsyncStub) -> object:
        started = asyncio.get_running_loop().time()
        try:
            return await stub.Diagnose(diagnose_request(phantom_field), timeout=120)
        except grpc.aio.AioRpcError as error:
            refused_after.append(asyncio.get_running_loop().time() - started)
            return ServiceError.from_rpc(error)

    started = asyncio.get_running_loop().time()
    async with open_aio_channel(stack["gateway"].address) as channel:
        stub = diagnosis_pb2_grpc.DiagnosisServiceStub(channel)
        outcomes = await asyncio.gather(*(one(stub) for _ in range(sent)))
    took = asyncio.get_running_loop().time() - started
    answered = [o for o in outcomes if isinstance(o, diagnosis_pb2.DiagnoseResponse)]
    refused = [o for o in outcomes if isinstance(o, ServiceError)]
    assert len(answered) >= at_once
    assert refused
    assert {(e.code, e.reason) for e in refused} == {("RESOURCE_EXHAUSTED", "OVERLOADED")}
    assert all(e.retry_after is not None and 0.1 <= e.retry_after <= 10.0 for e in refused)
    assert max(refused_after) < took / 2
    assert gained("dl4all_requests_refused_total") == len(refused)
    for name in SERVICES:
        if name != "gateway":
            assert stack[name].metrics()("dl4all_requests_refused_total") == 0, name


def test_logs_are_json_with_request_ids(stack: Stack, phantom_cell: bytes) -> None:
    with DiagnosisClient(stack["gateway"].address) as client:
        client.diagnose(phantom_cell, request_id="in-the-logs", specimen="never-logged")
    for name in SERVICES:
        lines = [json.loads(line) for line in stack[name].log.read_text().splitlines()]
        assert any(line.get("request_id") == "in-the-logs" and line["service"] == name for line in lines), name
        assert "never-logged" not in stack[name].log.read_text()


def _own_segments(triton: Running) -> list[Path]:
    """Shared memory between Triton and the processes of its models."""
    assert triton.process is not None
    return list(Path("/dev/shm").glob(f"{triton.part.shared_memory_prefix}{triton.process.pid}_*"))


CLOSED: dict[str, Callable[[tritonclient.InferenceServerClient, str], object]] = {
    "register": lambda client, key: client.register_system_shared_memory("stolen", key, 64),
    "unregister": lambda client, _: client.unregister_system_shared_memory(),
    "regions": lambda client, _: client.get_system_shared_memory_status(),
    "cuda regions": lambda client, _: client.get_cuda_shared_memory_status(),
    "trace": lambda client, _: client.update_trace_settings(settings={"trace_file": "/tmp/trace"}),
    "logging": lambda client, _: client.update_log_settings({"log_file": "/tmp/log"}),
}


@pytest.mark.parametrize("call", CLOSED)
def test_what_the_services_do_not_use_of_triton_is_closed(stack: Stack, call: str) -> None:
    segment = _own_segments(stack[TRITON])[0]
    with closing(tritonclient.InferenceServerClient(stack[TRITON].address)) as client:
        assert client.is_server_ready()
        with pytest.raises(InferenceServerException, match="protocol is restricted"):
            CLOSED[call](client, f"/{segment.name}")


def test_the_shared_memory_of_triton_is_for_its_own_user_only(stack: Stack) -> None:
    segments = _own_segments(stack[TRITON])
    assert segments
    assert {stat.S_IMODE(path.stat().st_mode) for path in segments} == {0o600}
