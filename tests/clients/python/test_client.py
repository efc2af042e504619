"""The SDK over fake stubs: what is sent, what is returned, and what failures become."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all.imaging.v1 import imaging_pb2
from dl4all_client import AsyncDiagnosisClient, DiagnosisClient, ServiceError
from dl4all_client.client import SLIDE_CHUNK_BYTES, diagnose_request, finding_name, slide_requests, slide_start


class Refused(grpc.RpcError):
    """A call that the service refused without details."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.RESOURCE_EXHAUSTED

    def details(self) -> str:
        return "too much"

    def trailing_metadata(self) -> tuple[()]:
        return ()


class FakeStub:
    """Answers every RPC with a diagnosis per image, or fails."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.requests: list[Any] = []
        self.timeouts: list[float | None] = []

    def Diagnose(self, request: diagnosis_pb2.DiagnoseRequest, timeout: float) -> diagnosis_pb2.DiagnoseResponse:
        self._note(request, timeout)
        finding = diagnosis_pb2.FINDING_INDETERMINATE
        return diagnosis_pb2.DiagnoseResponse(diagnosis=diagnosis_pb2.Diagnosis(request_id=request.request_id, finding=finding))

    def DiagnoseSpecimen(self, requests: Iterator[diagnosis_pb2.DiagnoseSpecimenRequest]) -> Iterator[diagnosis_pb2.DiagnoseSpecimenResponse]:
        for request in requests:
            self._note(request.request, None)
            yield diagnosis_pb2.DiagnoseSpecimenResponse(image=diagnosis_pb2.DiagnoseStreamResponse(request_id=request.request.request_id))
        yield diagnosis_pb2.DiagnoseSpecimenResponse(specimen=diagnosis_pb2.SpecimenDiagnosis(images=len(self.requests)))

    def DiagnoseSlide(
        self, requests: Iterator[diagnosis_pb2.DiagnoseSlideRequest], timeout: float | None
    ) -> Iterator[diagnosis_pb2.DiagnoseSlideResponse]:
        for request in requests:
            self._note(request, timeout)
            yield diagnosis_pb2.DiagnoseSlideResponse(progress=diagnosis_pb2.DiagnoseSlideProgress(bytes_received=len(request.chunk)))

    def ListSystems(self, request: diagnosis_pb2.ListSystemsRequest, timeout: float) -> diagnosis_pb2.ListSystemsResponse:
        self._note(request, timeout)
        return diagnosis_pb2.ListSystemsResponse(releases=[diagnosis_pb2.SystemRelease(release="a-1")])

    def _note(self, request: Any, timeout: float | None) -> None:
        if self.fails:
            raise Refused
        self.requests.append(request)
        self.timeouts.append(timeout)


@pytest.fixture
def stub() -> FakeStub:
    return FakeStub()


@pytest.fixture
def client(stub: FakeStub) -> Iterator[DiagnosisClient]:
    with DiagnosisClient("localhost:1", timeout=9.0) as made:
        made._stub = cast(Any, stub)
        yield made


def test_an_image_is_sent_as_asked_and_its_diagnosis_returned(client: DiagnosisClient, stub: FakeStub) -> None:
    diagnosis = client.diagnose(
        b"pixels", kind="cell", release="dss", request_id="a", specimen="S", microns_per_pixel=0.5, explain=True, neighbours=7
    )
    assert (diagnosis.request_id, client.finding_name(diagnosis)) == ("a", "INDETERMINATE")
    (request,) = stub.requests
    assert (request.image, request.release, request.specimen, request.microns_per_pixel) == (b"pixels", "dss", "S", 0.5)
    assert request.kind == imaging_pb2.ImageKind.IMAGE_KIND_CELL
    display = request.display
    assert (display.neighbours, display.include_maps, display.include_crops, display.include_latent_map) == (7, True, True, True)
    assert stub.timeouts == [9.0]


def test_images_of_a_specimen_have_ids_of_their_own_and_its_aggregate_is_returned(client: DiagnosisClient, stub: FakeStub) -> None:
    assert client.diagnose_specimen([b"1", b"2", b"3"], specimen="S").images == 3
    assert [r.request_id for r in stub.requests] == ["0", "1", "2"]
    assert {r.specimen for r in stub.requests} == {"S"}


def test_a_slide_is_uploaded_in_chunks_as_it_is_read(client: DiagnosisClient, stub: FakeStub, tmp_path: Path) -> None:
    slide = tmp_path / "slide.tif"
    slide.write_bytes(bytes(2 * SLIDE_CHUNK_BYTES + 5))
    received = [part.progress.bytes_received for part in client.diagnose_slide(slide, seconds=3.0, explained_cells=4)]
    assert received == [0, SLIDE_CHUNK_BYTES, SLIDE_CHUNK_BYTES, 5]
    start = stub.requests[0].start
    assert (start.source.upload_bytes, start.explained_cells) == (2 * SLIDE_CHUNK_BYTES + 5, 4)
    assert set(stub.timeouts) == {3.0}


def test_a_slide_that_the_service_holds_is_named_by_its_path(client: DiagnosisClient, stub: FakeStub) -> None:
    list(client.diagnose_slide("folder/slide.svs"))
    (request,) = stub.requests
    assert request.start.source.path == "folder/slide.svs"


def test_systems_are_listed(client: DiagnosisClient) -> None:
    assert [s.release for s in client.list_systems()] == ["a-1"]


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.diagnose(b""),
        lambda c: c.diagnose_specimen([b""]),
        lambda c: list(c.diagnose_slide("a")),
        lambda c: c.list_systems(),
    ],
)
def test_a_refusal_is_a_service_error(client: DiagnosisClient, stub: FakeStub, call: Any) -> None:
    stub.fails = True
    with pytest.raises(ServiceError) as caught:
        call(client)
    assert (caught.value.code, caught.value.reason, caught.value.message) == ("RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED", "too much")


async def test_a_stream_gives_a_diagnosis_or_an_error_for_each_image() -> None:
    class Streaming:
        async def DiagnoseStream(
            self, messages: AsyncIterator[diagnosis_pb2.DiagnoseStreamRequest]
        ) -> AsyncIterator[diagnosis_pb2.DiagnoseStreamResponse]:
            async for message in messages:
                answer = diagnosis_pb2.DiagnoseStreamResponse(request_id=message.request.request_id)
                if message.request.image:
                    answer.diagnosis.request_id = message.request.request_id
                else:
                    answer.error.code, answer.error.message = 3, "empty"
                yield answer

    async def requests() -> AsyncIterator[diagnosis_pb2.DiagnoseRequest]:
        yield diagnose_request(b"x", request_id="a")
        yield diagnose_request(b"", request_id="b")

    async with AsyncDiagnosisClient("localhost:1") as client:
        client._stub = cast(Any, Streaming())
        found = [answer async for answer in client.diagnose_stream(requests())]
    (first, diagnosis), (second, error) = found
    assert (first, second) == ("a", "b")
    assert isinstance(diagnosis, diagnosis_pb2.Diagnosis)
    assert isinstance(error, ServiceError)
    assert (error.code, error.message) == ("INVALID_ARGUMENT", "empty")


def test_what_makes_no_sense_is_refused_before_it_is_sent() -> None:
    with pytest.raises(ValueError, match="auto, cell, field"):
        diagnose_request(b"", kind="smear")
    for given in ({}, {"path": "a", "upload_bytes": 3}):
        with pytest.raises(ValueError, match="either path or upload_bytes"):
            slide_start(**cast(Any, given))


def test_a_slide_on_the_service_has_no_chunks() -> None:
    assert len(list(slide_requests(slide_start(path="a")))) == 1
    assert len(list(slide_requests(slide_start(upload_bytes=3), io.BytesIO(b"abc")))) == 2


def test_findings_are_named_without_prefix() -> None:
    assert finding_name(diagnosis_pb2.FINDING_NO_BLASTS_SEEN) == "NO_BLASTS_SEEN"
