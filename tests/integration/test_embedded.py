"""The five servicers wired in one process, called through local stubs."""

from __future__ import annotations

import asyncio
import math

import grpc
import pytest

from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all.imaging.v1 import imaging_pb2
from dl4all.preprocessing.v1 import preprocessing_pb2
from dl4all_client import ServiceError, diagnose_request
from services.common.health import Readiness
from services.common.settings import CommonSettings
from services.embedded import embedded_services
from services.gateway.settings import GatewaySettings
from tests.running import NOT_SERVING, SERVING


@pytest.fixture
async def services():
    async with embedded_services(CommonSettings()) as running:
        yield running


async def test_a_caller_who_does_not_read_is_not_read_from(services, phantom_cell):
    pulled = 0

    async def requests():
        nonlocal pulled
        for number in range(100):
            pulled += 1
            yield diagnosis_pb2.DiagnoseStreamRequest(request=diagnose_request(phantom_cell, request_id=str(number)))

    answers = services.stubs["gateway"].DiagnoseStream(requests())
    await anext(answers)
    before = -1
    while before != pulled:
        before = pulled
        await asyncio.sleep(0.3)
    await answers.aclose()
    assert pulled <= GatewaySettings().stream_window + 2


@pytest.mark.parametrize("service", ["retrieval", "classification"])
async def test_the_gateway_is_ready_only_while_all_that_it_composes_is(services, monkeypatch, service):
    async def never(_):
        return False

    registrations = [*services.inner, *services.outward]
    readiness = Readiness([r.service for r in registrations], {r.service: r.needs for r in registrations}, 20.0)
    outward = ("dl4all.diagnosis.v1.DiagnosisService", "dl4all.diagnosis.v1.LibraryService")
    assert {name: (await readiness.statuses())[name] for name in outward} == dict.fromkeys(outward, SERVING)
    servicer = services.servicers[service]
    broken, probe = (servicer, "_can_be_used") if service == "retrieval" else (servicer._engine, "is_ready")
    monkeypatch.setattr(broken, probe, never)
    assert {name: (await readiness.statuses())[name] for name in outward} == dict.fromkeys(outward, NOT_SERVING)


async def test_one_bad_crop_does_not_fail_the_others(services):
    release = services.releases.resolve("").id
    good = imaging_pb2.Crop(pixels=bytes(range(256)) * 48, height=64, width=64, center_x=32, center_y=32, radius_estimate=15, cell_id=1)
    bad = {
        "short": imaging_pb2.Crop(pixels=b"123", height=64, width=64, center_x=32, center_y=32, radius_estimate=15, cell_id=2),
        "nan": imaging_pb2.Crop(pixels=good.pixels, height=64, width=64, center_x=math.nan, center_y=32, radius_estimate=15, cell_id=3),
        "outside": imaging_pb2.Crop(pixels=good.pixels, height=64, width=64, center_x=500, center_y=32, radius_estimate=15, cell_id=4),
        "huge": imaging_pb2.Crop(pixels=bytes(3 * 4096), height=1, width=4096, center_x=5, center_y=0, radius_estimate=3, cell_id=5),
    }
    request = preprocessing_pb2.EnhanceRequest(release=release, crops=[good, *bad.values(), good])
    outcomes = (await services.stubs["preprocessing"].Enhance(request)).outcomes
    assert [o.cell_id for o in outcomes] == [1, 2, 3, 4, 5, 1]
    assert [o.WhichOneof("result") for o in outcomes] == ["enhanced", "error", "error", "error", "error", "enhanced"]
    assert outcomes[0] == outcomes[-1]
    assert {ServiceError.from_status(o.error).reason for o in outcomes[1:5]} == {
        "PIXELS_WRONG_SIZE",
        "CELL_NOT_FINITE",
        "CELL_OUTSIDE_CROP",
        "CROP_TOO_LARGE",
    }


@pytest.mark.parametrize("release", ["none-such", "x" * 20000])
async def test_a_release_that_is_not_held(services, release):
    request = preprocessing_pb2.EnhanceRequest(release=release, crops=[imaging_pb2.Crop()])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await services.stubs["preprocessing"].Enhance(request)
    expected = ("FAILED_PRECONDITION", "RELEASE_NOT_HELD") if len(release) < 100 else ("INVALID_ARGUMENT", "IDENTIFIER_INVALID")
    error = ServiceError.from_rpc(caught.value)
    assert (error.code, error.reason) == expected


async def test_a_failure_between_services_is_internal_and_names_the_request(services, phantom_cell, monkeypatch):
    async def broken(request, *, timeout, metadata):
        raise grpc.aio.AioRpcError(grpc.StatusCode.INVALID_ARGUMENT, grpc.aio.Metadata(), grpc.aio.Metadata(), "inner words")

    monkeypatch.setattr(services.stubs["classification"], "Classify", broken)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await services.stubs["gateway"].Diagnose(diagnose_request(phantom_cell, request_id="abc"))
    error = ServiceError.from_rpc(caught.value)
    assert (error.code, error.reason) == ("INTERNAL", "INTERNAL")
    assert "abc" in error.message
    assert "inner" not in error.message


async def test_a_dependency_that_is_down_is_unavailable(services, phantom_cell, monkeypatch):
    async def down(request, *, timeout, metadata):
        raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "connection refused")

    monkeypatch.setattr(services.stubs["retrieval"], "Explain", down)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await services.stubs["gateway"].Diagnose(diagnose_request(phantom_cell))
    error = ServiceError.from_rpc(caught.value)
    assert (error.code, error.reason) == ("UNAVAILABLE", "DEPENDENCY_UNAVAILABLE")


async def test_an_answer_that_is_too_large_says_what_to_do(services, phantom_field, monkeypatch):
    servicer = services.servicers["gateway"]
    monkeypatch.setattr(servicer._images, "_max_bytes", 100_000)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await services.stubs["gateway"].Diagnose(diagnose_request(phantom_field, explain=True))
    error = ServiceError.from_rpc(caught.value)
    assert (error.code, error.reason, error.field) == ("INVALID_ARGUMENT", "ANSWER_TOO_LARGE", "display")
    assert (await services.stubs["gateway"].Diagnose(diagnose_request(phantom_field))).diagnosis.cells
