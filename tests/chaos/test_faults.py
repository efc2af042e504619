"""Every part stopped, killed, paused, restarted; a model unloaded; a release missing: the caller's answer, the other parts, and the health."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
import tritonclient.grpc as tritonclient

from dl4all.classification.v1 import classification_pb2, classification_pb2_grpc
from dl4all.patching.v1 import patching_pb2, patching_pb2_grpc
from dl4all.preprocessing.v1 import preprocessing_pb2, preprocessing_pb2_grpc
from dl4all.retrieval.v1 import retrieval_pb2, retrieval_pb2_grpc
from dl4all_client import DiagnosisClient, ServiceError, diagnose_request
from services.common.health import LIVE, model_name, release_name
from services.common.parts import SERVICES, TRITON
from tests.paths import ROOT
from tests.running import NOT_SERVING, PATIENCE, SERVING, UNREACHABLE, Running, Stack, eventually

INNER = tuple(name for name in SERVICES if name != "gateway")
RELEASE = "plain-resnet-1"
PAUSED = ("DEADLINE_EXCEEDED", "UNAVAILABLE")
"""Statuses of a call while a part hangs: its deadline passes, or the connection ends because its pings are not answered."""
MODEL = "plain_resnet_128"
OF_TRITON = {"patching", "classification"}
"""Services that ask Triton."""
DIAGNOSIS = "dl4all.diagnosis.v1.DiagnosisService"


@dataclass
class Outcome:
    """Answer to a call, and its seconds."""

    error: ServiceError | None
    seconds: float


def diagnose(stack: Stack, image: bytes, timeout: float = 20.0, release: str = "") -> Outcome:
    started = time.monotonic()
    with DiagnosisClient(stack["gateway"].address, timeout=timeout) as client:
        try:
            assert client.diagnose(image, release=release).cells
        except ServiceError as error:
            return Outcome(error, time.monotonic() - started)
    return Outcome(None, time.monotonic() - started)


def inner_calls(stack: Stack, image: bytes) -> dict[str, Callable[[], object]]:
    """One RPC of each inner service, called directly."""

    def patching() -> object:
        with stack["patching"].channel() as channel:
            return list(patching_pb2_grpc.PatchingServiceStub(channel).LocateCells(patching_pb2.LocateCellsRequest(image=image), timeout=20))

    def preprocessing() -> object:
        with stack["preprocessing"].channel() as channel:
            stub = preprocessing_pb2_grpc.PreprocessingServiceStub(channel)
            return stub.MeasureFocus(preprocessing_pb2.MeasureFocusRequest(image=image), timeout=20)

    def classification() -> object:
        with stack["classification"].channel() as channel:
            stub = classification_pb2_grpc.ClassificationServiceStub(channel)
            cell = classification_pb2.ClassifyCell(pixels=bytes(128 * 128 * 3))
            return stub.Classify(classification_pb2.ClassifyRequest(release=RELEASE, cells=[cell]), timeout=20)

    def retrieval() -> object:
        with stack["retrieval"].channel() as channel:
            return retrieval_pb2_grpc.RetrievalServiceStub(channel).GetLatentMap(retrieval_pb2.GetLatentMapRequest(release=RELEASE), timeout=20)

    return {"patching": patching, "preprocessing": preprocessing, "classification": classification, "retrieval": retrieval}


def assert_said(stack: Stack, *, ready: bool, broken: Collection[str] = ()) -> None:
    """Health and metrics of the gateway and of every other service agree and are right."""
    gateway = stack["gateway"]
    expected = SERVING if ready else NOT_SERVING
    eventually(lambda: gateway.health() == expected, 5, f"the gateway says {expected}")
    for name in ("", DIAGNOSIS, release_name(RELEASE)):
        assert gateway.health(name) == expected, name
    assert gateway.health(LIVE) == SERVING
    eventually(lambda: gateway.metrics()("dl4all_ready", service=DIAGNOSIS) == float(ready), 5, "the metric agrees")
    if broken:
        found = {
            name: gateway.metrics()("dl4all_dependency_ready", service=DIAGNOSIS, dependency=f"{name} {release_name(RELEASE)}") for name in INNER
        }
        assert found == {name: float(name not in broken) for name in INNER}
    for name in INNER:
        if name not in broken:
            assert stack[name].health() == SERVING, name


def assert_others_work(stack: Stack, image: bytes, broken: Collection[str]) -> None:
    """The rest of the stack keeps answering."""
    for name, call in inner_calls(stack, image).items():
        if name not in broken:
            assert call(), name
    if "gateway" not in broken:
        with DiagnosisClient(stack["gateway"].address) as client:
            assert client.list_releases()


def assert_recovered(stack: Stack, image: bytes, pids: dict[str, int], broken: str) -> None:
    """All parts work again, and no other process was restarted for it."""
    for name in SERVICES:
        stack[name].wait_serving()
    assert_said(stack, ready=True)
    assert diagnose(stack, image).error is None
    assert {n: p for n, p in processes(stack).items() if n != broken} == {n: p for n, p in pids.items() if n != broken}


def processes(stack: Stack) -> dict[str, int]:
    return {name: running.process.pid for name, running in stack.parts.items() if running.process is not None}


@pytest.fixture(autouse=True)
def healthy(stack: Stack, phantom_cell: bytes) -> None:
    stack.wait_serving()
    assert diagnose(stack, phantom_cell).error is None


@pytest.mark.parametrize("how", ["stopped", "killed"])
@pytest.mark.parametrize("name", INNER)
def test_a_service_is_gone(stack: Stack, phantom_cell: bytes, name: str, how: str) -> None:
    pids = processes(stack)
    if how == "stopped":
        assert stack[name].stop() == 0
    else:
        stack[name].kill()
    outcome = diagnose(stack, phantom_cell)
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.reason) == ("UNAVAILABLE", "DEPENDENCY_UNAVAILABLE")
    assert name in outcome.error.message
    assert outcome.seconds < PATIENCE
    assert stack[name].health() == UNREACHABLE
    assert_said(stack, ready=False, broken={name})
    assert_others_work(stack, phantom_cell, {name})
    stack[name].start()
    assert_recovered(stack, phantom_cell, pids, name)


@pytest.mark.parametrize("name", INNER)
def test_a_service_is_paused(stack: Stack, phantom_cell: bytes, name: str) -> None:
    pids = processes(stack)
    stack[name].pause()
    try:
        outcome = diagnose(stack, phantom_cell, timeout=2.0)
        assert outcome.error is not None
        assert outcome.error.code in PAUSED
        assert outcome.seconds < PATIENCE
        assert stack[name].health(timeout=1.0) == UNREACHABLE
        assert_said(stack, ready=False, broken={name})
        assert_others_work(stack, phantom_cell, {name})
    finally:
        stack[name].resume()
    assert_recovered(stack, phantom_cell, pids, "")


def test_a_pause_is_noticed_long_before_a_long_deadline(stack: Stack, phantom_cell: bytes) -> None:
    stack["preprocessing"].pause()
    try:
        outcome = diagnose(stack, phantom_cell, timeout=120.0)
    finally:
        stack["preprocessing"].resume()
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.reason) == ("UNAVAILABLE", "DEPENDENCY_UNAVAILABLE")
    assert outcome.seconds < PATIENCE
    assert_recovered(stack, phantom_cell, processes(stack), "")


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_triton_is_gone(stack: Stack, phantom_cell: bytes, how: str) -> None:
    pids = processes(stack)
    if how == "stopped":
        stack[TRITON].stop()
    else:
        stack[TRITON].kill()
    outcome = diagnose(stack, phantom_cell)
    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.reason) == ("UNAVAILABLE", "MODEL_UNAVAILABLE")
    assert outcome.seconds < PATIENCE
    assert stack["classification"].health() == NOT_SERVING
    assert stack["classification"].health(model_name(f"{MODEL}/1")) == NOT_SERVING
    assert_said(stack, ready=False, broken=OF_TRITON)
    assert_others_work(stack, phantom_cell, OF_TRITON)
    stack[TRITON].start()
    assert_recovered(stack, phantom_cell, pids, TRITON)


def test_triton_is_paused(stack: Stack, phantom_cell: bytes) -> None:
    pids = processes(stack)
    stack[TRITON].pause()
    try:
        outcome = diagnose(stack, phantom_cell, timeout=2.0)
        assert outcome.error is not None
        assert outcome.error.code in PAUSED
        assert outcome.seconds < PATIENCE
        eventually(lambda: stack["classification"].health() == NOT_SERVING, 5)
        assert_said(stack, ready=False, broken=OF_TRITON)
        assert_others_work(stack, phantom_cell, OF_TRITON)
    finally:
        stack[TRITON].resume()
    assert_recovered(stack, phantom_cell, pids, "")


def test_a_model_is_unloaded_and_loaded(stack: Stack, phantom_cell: bytes) -> None:
    pids = processes(stack)
    triton = tritonclient.InferenceServerClient(stack[TRITON].address)
    triton.unload_model(MODEL)
    try:
        eventually(lambda: not triton.is_model_ready(MODEL), 30)
        assert triton.is_server_live()
        outcome = diagnose(stack, phantom_cell)
        assert outcome.error is not None
        assert (outcome.error.code, outcome.error.reason) == ("UNAVAILABLE", "MODEL_UNAVAILABLE")
        assert stack["classification"].health(release_name(RELEASE)) == NOT_SERVING
        assert_said(stack, ready=False, broken={"classification"})
        assert_others_work(stack, phantom_cell, {"classification"})
    finally:
        triton.load_model(MODEL)
    assert_recovered(stack, phantom_cell, pids, "")


@pytest.mark.parametrize("name", ["preprocessing", "classification", "retrieval"])
def test_a_release_is_missing_in_one_service(stack: Stack, phantom_cell: bytes, tmp_path: Path, name: str) -> None:
    original = stack[name].part
    pids = processes(stack)
    assert stack[name].stop() == 0
    stack[name].part = replace(original, environment={**original.environment, "DL4ALL_RELEASES": str(_renamed_release(tmp_path))})
    stack[name].start()
    try:
        stack[name].wait_serving()
        outcome = _once_it_is_reached(stack, phantom_cell)
        assert outcome.error is not None
        assert (outcome.error.code, outcome.error.reason) == ("FAILED_PRECONDITION", "RELEASE_NOT_HELD")
        assert stack[name].health(release_name("other-1")) == SERVING
        assert stack[name].health(release_name(RELEASE)) == UNREACHABLE
        assert_said(stack, ready=False)
        gateway = stack["gateway"].metrics()
        assert gateway("dl4all_dependency_ready", dependency=f"{name} {release_name(RELEASE)}") == 0
        assert gateway("dl4all_release_ready", release=RELEASE) == 0
    finally:
        stack[name].stop()
        stack[name].part = original
        stack[name].start()
    assert_recovered(stack, phantom_cell, pids, name)


def _once_it_is_reached(stack: Stack, image: bytes) -> Outcome:
    """The answer after the gateway has connected again: until then, a service that was started anew is unavailable to it."""
    outcomes: list[Outcome] = []

    def reached() -> bool:
        outcomes.append(diagnose(stack, image))
        error = outcomes[-1].error
        return error is None or error.code != "UNAVAILABLE"

    eventually(reached, what="the gateway reaches the service that was started anew")
    return outcomes[-1]


def _renamed_release(folder: Path) -> Path:
    releases = folder / "releases"
    shutil.copytree(ROOT / "releases" / RELEASE, releases / "other-1")
    path = releases / "other-1" / "release.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "id": "other-1"}))
    (releases / "index.json").write_text(json.dumps({"default": "other-1", "current": {"plain_resnet": "other-1"}}))
    return releases


@pytest.mark.parametrize("how", ["stopped", "killed", "paused"])
def test_the_gateway_itself(stack: Stack, phantom_cell: bytes, how: str) -> None:
    pids, gateway = processes(stack), stack["gateway"]
    ways: dict[str, Callable[[], object]] = {"stopped": gateway.stop, "killed": gateway.kill, "paused": gateway.pause}
    ways[how]()
    outcome = diagnose(stack, phantom_cell, timeout=2.0)
    assert outcome.error is not None
    assert outcome.error.code in (("DEADLINE_EXCEEDED", "UNAVAILABLE") if how == "paused" else ("UNAVAILABLE",))
    assert outcome.seconds < PATIENCE
    assert_others_work(stack, phantom_cell, {"gateway"})
    if how == "paused":
        gateway.resume()
    else:
        gateway.start()
    assert_recovered(stack, phantom_cell, pids, "gateway")


@pytest.mark.parametrize("name", SERVICES)
def test_a_draining_service_says_so_and_finishes_what_it_accepted(stack: Stack, large_field: bytes, name: str) -> None:
    """Health turns before anything is refused; watchers hear it; the call that was accepted is answered."""
    pids = processes(stack)
    busy = stack[name] if name in ("gateway", "patching", "preprocessing") else stack["gateway"]  # the others finish too quickly
    watched = []
    with stack[name].channel() as channel, DiagnosisClient(stack["gateway"].address) as client:
        from grpc_health.v1 import health_pb2, health_pb2_grpc

        for status in cast(Any, health_pb2_grpc.HealthStub(channel)).Watch(health_pb2.HealthCheckRequest(), timeout=60):
            watched.append(status.status)
            if len(watched) == 1:
                call = client._diagnosis.Diagnose.future(diagnose_request(large_field), timeout=60)
                eventually(lambda: _busy(busy), 30, f"{busy.part.name} has work")
                stack[name].send(signal.SIGTERM)
        assert watched == [SERVING, NOT_SERVING]
        process = stack[name].process
        assert process is not None
        assert process.wait(60) == 0
        if name in ("gateway", "patching"):  # the one call that these have of an image was accepted whole
            assert call.result().diagnosis.cells
        else:
            error: Any = call.exception()
            assert error is None or error.code() is grpc.StatusCode.UNAVAILABLE
    stack[name].kill()
    stack[name].start()
    assert_recovered(stack, large_field, pids, name)


def _busy(running: Running) -> bool:
    return running.metrics()("dl4all_requests_in_progress") > 0
