"""An image through a real server."""

from __future__ import annotations

import math
from typing import Any, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from dl4all.diagnosis.v1 import diagnosis_pb2, diagnosis_pb2_grpc
from dl4all.imaging.v1 import imaging_pb2
from dl4all_client import AsyncDiagnosisClient, DiagnosisClient, ServiceError, diagnose_request
from services.common.phantom import PhantomOptions, encode_png, smear_field
from tests.integration.conftest import start_server

OUTWARD = {"dl4all.diagnosis.v1.DiagnosisService", "dl4all.diagnosis.v1.LibraryService"}


def test_phantom_field_is_located_judged_and_explained(server, phantom_field):
    with DiagnosisClient(server.address) as client:
        diagnosis = client.diagnose(phantom_field, explain=True, request_id="field", neighbours=4)
    assert diagnosis.request_id == "field"
    assert diagnosis.kind == imaging_pb2.IMAGE_KIND_FIELD
    assert diagnosis.counts.total == len(diagnosis.cells) >= 6
    assert "PHANTOM" in diagnosis.reasons
    assert diagnosis.requires_review
    assert diagnosis.finding != diagnosis_pb2.FINDING_NO_BLASTS_SEEN
    assert diagnosis.latent_map
    assert diagnosis.provenance.release
    assert len(diagnosis.provenance.image_sha256) == 64
    assert {t.stage for t in diagnosis.timings} >= {"locate", "enhance", "classify", "explain", "total"}
    for cell in diagnosis.cells:
        assert 0.0 <= cell.blast_probability <= 1.0
        assert len(cell.neighbours) == 4
        assert [n.distance for n in cell.neighbours] == sorted(n.distance for n in cell.neighbours)
        assert len(cell.registered_pixels) == cell.registered_side**2 * 3
        for neighbour in cell.neighbours:
            assert len(neighbour.query_map.values) == neighbour.query_map.height * neighbour.query_map.width > 0
            assert max(neighbour.query_map.values) == 255
            assert len(neighbour.query_grad_cam.values) == len(neighbour.neighbour_grad_cam.values) == len(neighbour.query_map.values)
            pairs = neighbour.place_similarities
            assert pairs.map.channels == pairs.neighbour_height * pairs.neighbour_width
            assert len(pairs.map.values) == pairs.map.height * pairs.map.width * pairs.map.channels > 0
            assert neighbour.map_model == "plain_resnet_128/1"


def test_single_cell_never_says_no_blasts(server, phantom_cell):
    with DiagnosisClient(server.address) as client:
        diagnosis = client.diagnose(phantom_cell)
    assert diagnosis.kind == imaging_pb2.IMAGE_KIND_CELL
    assert diagnosis.counts.total == 1
    assert diagnosis.finding != diagnosis_pb2.FINDING_NO_BLASTS_SEEN
    assert not diagnosis.cells[0].registered_pixels
    assert not diagnosis.cells[0].neighbours[0].HasField("query_map")


def test_same_image_same_answer(server, phantom_field):
    with DiagnosisClient(server.address) as client:
        first, second = (client.diagnose(phantom_field, request_id="same", explain=True) for _ in range(2))
    first.ClearField("timings")
    second.ClearField("timings")
    assert first == second


def test_display_options_do_not_change_the_decision(server, phantom_field):
    with DiagnosisClient(server.address) as client:
        plain = client.diagnose(phantom_field)
        shown = client.diagnose(phantom_field, explain=True, neighbours=20)
    assert plain.finding == shown.finding
    assert [c.blast_probability for c in plain.cells] == [c.blast_probability for c in shown.cells]
    assert [c.neighbour_vote for c in plain.cells] == [c.neighbour_vote for c in shown.cells]


def test_a_request_id_is_made_up(server, phantom_cell):
    with DiagnosisClient(server.address) as client:
        assert len(client.diagnose(phantom_cell).request_id) == 32


def test_stream_answers_every_image_and_one_bad_image_does_not_end_it(server, phantom_cell, phantom_field):
    async def run():
        async def requests():
            for number in range(6):
                yield diagnose_request(b"not an image" if number == 2 else phantom_cell, request_id=f"r{number}")

        async with AsyncDiagnosisClient(server.address) as client:
            return dict([answer async for answer in client.diagnose_stream(requests())])

    import asyncio

    answers = asyncio.run(run())
    assert set(answers) == {f"r{n}" for n in range(6)}
    assert isinstance(answers["r2"], ServiceError)
    assert answers["r2"].reason == "IMAGE_UNKNOWN_FORMAT"
    assert all(isinstance(answers[f"r{n}"], diagnosis_pb2.Diagnosis) for n in (0, 1, 3, 4, 5))


async def test_stream_refuses_an_id_in_flight_and_a_missing_id(server, phantom_field):
    async def messages():
        for request_id in ("a", "a", ""):
            yield diagnosis_pb2.DiagnoseStreamRequest(request=diagnose_request(phantom_field, request_id=request_id))

    async with grpc.aio.insecure_channel(server.address) as channel:
        answers = [a async for a in diagnosis_pb2_grpc.DiagnosisServiceStub(channel).DiagnoseStream(messages())]
    outcomes = sorted((a.request_id, a.WhichOneof("result"), a.error.code) for a in answers)
    assert outcomes == [("", "error", 3), ("a", "diagnosis", 0), ("a", "error", 6)]


def test_specimen_counts_a_repeated_image_once(server, phantom_field, phantom_cell):
    with DiagnosisClient(server.address) as client:
        field, cell = client.diagnose(phantom_field), client.diagnose(phantom_cell)
        aggregate = client.diagnose_specimen([phantom_field, phantom_cell, phantom_field, b"broken"], specimen="S-1")
    assert (aggregate.images, aggregate.duplicates, aggregate.failures) == (2, 1, 1)
    assert aggregate.counts.total == field.counts.total + cell.counts.total
    assert aggregate.counts.suspected == field.counts.suspected + cell.counts.suspected
    assert "IMAGES_FAILED" in aggregate.reasons
    assert aggregate.requires_review
    assert 0.0 <= aggregate.blast_fraction.lower <= aggregate.blast_fraction.upper <= 1.0


def test_specimen_refuses_a_mixture(server, phantom_cell):
    with grpc.insecure_channel(server.address) as channel:
        stub = diagnosis_pb2_grpc.DiagnosisServiceStub(channel)
        requests = [
            diagnosis_pb2.DiagnoseSpecimenRequest(request=diagnose_request(phantom_cell, request_id=str(n), specimen=s)) for n, s in enumerate("AB")
        ]
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.DiagnoseSpecimen(iter(requests)))
    assert ServiceError.from_rpc(caught.value).reason == "SPECIMEN_MIXED"


def test_empty_specimen_is_refused(server):
    with DiagnosisClient(server.address) as client, pytest.raises(ServiceError) as caught:
        client.diagnose_specimen([])
    assert caught.value.reason == "SPECIMEN_EMPTY"


def test_releases_are_listed_with_figures_and_limits(server):
    with DiagnosisClient(server.address) as client:
        releases = client.list_releases()
    assert sum(r.is_default for r in releases) == 1
    for release in releases:
        assert release.figures
        assert release.limits
        assert all(math.isfinite(f.value) for f in release.figures)


def test_a_release_is_chosen_by_id_or_by_system(server, phantom_cell):
    with DiagnosisClient(server.address) as client:
        (release,) = (r for r in client.list_releases() if r.is_default)
        for name in (release.release_id, release.system, ""):
            assert client.diagnose(phantom_cell, release=name).provenance.release == release.release_id


def test_a_release_that_needs_review_says_why(server, phantom_cell):
    with DiagnosisClient(server.address) as client:
        diagnosis = client.diagnose(phantom_cell)
    if diagnosis.provenance.detects == diagnosis_pb2.DETECTS_BLAST_LINEAGE_UNSPECIFIED:
        assert "MODEL_NOT_TRAINED_ON_LYMPHOBLASTS" in diagnosis.reasons
        assert diagnosis.requires_review


def test_a_field_without_white_cells_is_indeterminate(server):
    empty = encode_png(smear_field(2, PhantomOptions(width=640, height=480, cells=0, platelets=0)))
    with DiagnosisClient(server.address) as client:
        diagnosis = client.diagnose(empty, kind="field")
    assert diagnosis.finding == diagnosis_pb2.FINDING_INDETERMINATE
    assert "NO_CELLS" in diagnosis.reasons
    assert (diagnosis.blast_fraction.lower, diagnosis.blast_fraction.upper) == (0.0, 1.0)


def test_health_and_reflection(server):
    with grpc.insecure_channel(server.address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        for name in ("", "dl4all.diagnosis.v1.DiagnosisService"):
            assert health.Check(health_pb2.HealthCheckRequest(service=name)).status == health_pb2.HealthCheckResponse.SERVING
        services = set(ProtoReflectionDescriptorDatabase(channel).get_services())
    assert {name for name in services if name.startswith("dl4all.")} == OUTWARD


def test_callers_do_not_reach_the_inner_services_unless_a_setting_says_so(server):
    assert _of_patching(server) is grpc.StatusCode.UNIMPLEMENTED
    opened = start_server(DL4ALL_INNER_SERVICES="true")
    try:
        assert _of_patching(opened) is grpc.StatusCode.INVALID_ARGUMENT
    finally:
        opened.terminate()
        opened.wait()


def _of_patching(server):
    with grpc.insecure_channel(server.address) as channel:
        call: Any = channel.unary_stream("/dl4all.patching.v1.PatchingService/LocateCells")
        with pytest.raises(grpc.RpcError) as caught:
            list(call(b"", timeout=20))
    return cast(Any, caught.value).code()
