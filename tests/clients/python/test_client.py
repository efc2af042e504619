"""Both clients over fake stubs: requests, answers, and errors."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from dl4all.diagnosis.v1 import diagnosis_pb2, library_pb2
from dl4all.imaging.v1 import imaging_pb2
from dl4all_client import AsyncDiagnosisClient, DiagnosisClient, Reference, ServiceError, diagnose_request
from dl4all_client.aio import _errors, _Sent
from dl4all_client.requests import SLIDE_CHUNK_BYTES
from tests.clients.python.fakes import AsyncFakeStub, FakeStub

Call = Callable[..., Any]


@pytest.fixture
def stub() -> FakeStub:
    return FakeStub()


@pytest.fixture(params=["plain", "asyncio"])
def call(request: pytest.FixtureRequest, stub: FakeStub) -> Iterator[Call]:
    """Calls a method of one of the clients by its name; streams are collected."""
    if request.param == "plain":
        with DiagnosisClient("localhost:1", timeout=9.0) as client:
            client._diagnosis = client._library = cast(Any, stub)
            yield lambda name, *args, **options: _collected(getattr(client, name)(*args, **options))
    else:
        fake = AsyncFakeStub(stub)
        asynchronous = AsyncDiagnosisClient.over(fake, fake, timeout=9.0)
        yield lambda name, *args, **options: asyncio.run(_awaited(getattr(asynchronous, name)(*args, **options)))


def _collected(answer: Any) -> Any:
    return list(answer) if inspect.isgenerator(answer) else answer


async def _awaited(answer: Any) -> Any:
    return [part async for part in answer] if inspect.isasyncgen(answer) else await answer


def test_both_clients_have_the_same_methods_with_the_same_arguments() -> None:
    def methods(client: type) -> dict[str, list[str]]:
        public = {name: method for name, method in vars(client).items() if not name.startswith("_") and inspect.isfunction(method)}
        return {name: list(inspect.signature(method).parameters) for name, method in public.items()}

    assert methods(DiagnosisClient) == methods(AsyncDiagnosisClient)
    assert {"diagnose", "diagnose_stream", "diagnose_specimen", "diagnose_slide"} <= set(methods(DiagnosisClient))


def test_an_image_is_sent_as_asked_and_its_diagnosis_returned(call: Call, stub: FakeStub) -> None:
    options = {"kind": "cell", "release": "dss", "request_id": "a", "specimen": "S", "microns_per_pixel": 0.5, "explain": True, "neighbours": 7}
    assert call("diagnose", b"pixels", **options).request_id == "a"
    (request,) = stub.requests
    assert (request.image, request.release, request.specimen, request.microns_per_pixel) == (b"pixels", "dss", "S", 0.5)
    assert request.kind == imaging_pb2.IMAGE_KIND_CELL
    display = request.display
    assert (display.neighbours, display.include_maps, display.include_crops, display.include_latent_map) == (7, True, True, True)
    assert stub.timeouts == [9.0]
    assert stub.metadata == ()


def test_an_image_of_a_batch_says_so_in_the_headers_as_well(call: Call, stub: FakeStub) -> None:
    call("diagnose", b"pixels", priority="batch")
    assert stub.requests[0].priority == diagnosis_pb2.PRIORITY_BATCH
    assert stub.metadata == (("dl4all-priority", "batch"),)


def test_a_stream_gives_a_diagnosis_or_an_error_for_each_image(call: Call) -> None:
    (first, diagnosis), (second, error) = call("diagnose_stream", [diagnose_request(b"x", request_id="a"), diagnose_request(b"", request_id="b")])
    assert (first, second) == ("a", "b")
    assert isinstance(diagnosis, diagnosis_pb2.Diagnosis)
    assert isinstance(error, ServiceError)
    assert (error.code, error.message) == ("INVALID_ARGUMENT", "empty")


def test_images_of_a_specimen_are_numbered_and_its_aggregate_is_returned(call: Call, stub: FakeStub) -> None:
    told: list[tuple[str, str]] = []
    found = call("diagnose_specimen", [b"1", b"", b"3"], specimen="S", on_image=lambda name, answer: told.append((name, type(answer).__name__)))
    assert found.images == 3
    assert [stream.finished for stream in stub.streams] == [True], "the call ends by itself, and is not cancelled"
    assert [(r.request_id, r.specimen) for r in stub.requests[1:]] == [("0", "S"), ("1", "S"), ("2", "S")]
    assert told == [("0", "Diagnosis"), ("1", "ServiceError"), ("2", "Diagnosis")]


async def test_images_may_come_as_they_are_made() -> None:
    async def images() -> AsyncIterator[bytes]:
        yield b"1"
        yield b"2"

    async def requests() -> AsyncIterator[diagnosis_pb2.DiagnoseRequest]:
        yield diagnose_request(b"x", request_id="a")

    fake = AsyncFakeStub(FakeStub())
    client = AsyncDiagnosisClient.over(fake, fake)
    assert (await client.diagnose_specimen(images())).images == 2
    assert [name async for name, _ in client.diagnose_stream(requests())] == ["a"]


def _unreadable() -> Iterator[Any]:
    yield b"1"
    raise OSError("the disk is gone")


@pytest.mark.parametrize("name", ["diagnose_specimen", "diagnose_stream", "add_references"])
def test_what_ends_the_images_is_raised_as_it_is(call: Call, name: str) -> None:
    made: dict[str, Any] = {
        "diagnose_specimen": (_unreadable(), {}),
        "diagnose_stream": ((diagnose_request(image, request_id="a") for image in _unreadable()), {}),
        "add_references": ((Reference(i, True, "b", "P") for i in _unreadable()), {"source": "lab", "confirmed_by": "A", "idempotency_key": "k"}),
    }
    given, options = made[name]
    with pytest.raises(OSError, match="the disk is gone"):
        call(name, given, **options)


def test_a_stream_that_is_left_is_cancelled(stub: FakeStub) -> None:
    requests = [diagnose_request(b"x", request_id=name) for name in "abc"]
    with DiagnosisClient("localhost:1") as client:
        client._diagnosis = cast(Any, stub)
        answers = client.diagnose_stream(requests)
        next(answers)
        answers.close()
    assert [stream.cancelled for stream in stub.streams] == [True]


async def test_an_asynchronous_stream_that_is_left_is_cancelled(stub: FakeStub) -> None:
    fake = AsyncFakeStub(stub)
    answers = AsyncDiagnosisClient.over(fake, fake).diagnose_stream([diagnose_request(b"x", request_id="a")])
    await anext(answers)
    await answers.aclose()
    assert [stream.cancelled for stream in stub.streams] == [True]


@pytest.mark.parametrize("name", ["diagnose_stream", "diagnose_specimen", "add_references"])
def test_what_takes_long_has_no_limit_but_the_callers(call: Call, stub: FakeStub, name: str) -> None:
    options = {"source": "lab", "confirmed_by": "A", "idempotency_key": "k"} if name == "add_references" else {}
    call(name, [], **options)
    call(name, [], timeout=3.0, **options)
    assert stub.timeouts == [None, 3.0]


async def test_a_cancelled_task_ends_as_cancelled_whatever_ended_the_images() -> None:
    sent = _Sent(_fails())
    with pytest.raises(OSError, match="gone"):
        await anext(sent)

    async def cancelled() -> None:
        with _errors("", sent):
            await asyncio.sleep(60)

    task = asyncio.create_task(cancelled())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _fails() -> AsyncIterator[bytes]:
    raise OSError("the disk is gone")
    yield b""


def test_a_slide_is_uploaded_in_chunks(call: Call, stub: FakeStub, tmp_path: Path) -> None:
    slide = tmp_path / "slide.tif"
    slide.write_bytes(bytes(2 * SLIDE_CHUNK_BYTES + 5))
    received = [part.progress.bytes_received for part in call("diagnose_slide", slide, timeout=3.0, explained_cells=4)]
    assert received == [0, SLIDE_CHUNK_BYTES, SLIDE_CHUNK_BYTES, 5]
    start = stub.requests[0].start
    assert (start.source.upload_bytes, start.explained_cells) == (2 * SLIDE_CHUNK_BYTES + 5, 4)
    assert set(stub.timeouts) == {3.0}


def test_a_slide_that_the_service_holds_is_named_by_its_path(call: Call, stub: FakeStub) -> None:
    call("diagnose_slide", "folder/slide.svs", on_server=True)
    (request,) = stub.requests
    assert request.start.source.path == "folder/slide.svs"


def test_a_slide_that_is_not_there_is_an_error_of_this_machine(call: Call, stub: FakeStub, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        call("diagnose_slide", tmp_path / "none.tif")
    assert stub.requests == []


def test_cells_are_located_enhanced_and_their_focus_measured(call: Call, stub: FakeStub) -> None:
    assert len(call("locate_cells", b"x", kind="field", microns_per_pixel=0.25).cells) == 1
    assert call("measure_focus", b"y") == 6.5
    assert call("enhance_cell", b"z", release="dss", include_crop=True).release == "dss-1"
    located, measured, enhanced = stub.requests
    assert (located.image, located.kind, located.microns_per_pixel) == (b"x", imaging_pb2.IMAGE_KIND_FIELD, 0.25)
    assert (measured.image, enhanced.image, enhanced.release, enhanced.include_crop) == (b"y", b"z", "dss", True)
    assert stub.timeouts == [9.0] * 3


def test_releases_and_libraries_are_listed(call: Call, stub: FakeStub) -> None:
    assert [r.release_id for r in call("list_releases")] == ["a-1"]
    assert call("get_library", "dss").library.patients == 4
    assert stub.requests[-1].release == "dss"


def test_confirmed_cells_are_sent_after_what_they_share(call: Call, stub: FakeStub) -> None:
    cells = [Reference(b"1", True, "blast", "P1"), Reference(b"2", False, "lymphocyte", "P2", 0.5)]
    kept = call("add_references", cells, source="lab", confirmed_by="Dr A", idempotency_key="k", release="dss")
    assert list(kept.addition_ids) == [0, 1]
    start, first, second = stub.requests
    assert start.start == library_pb2.AddReferencesStart(release="dss", idempotency_key="k", confirmed_by="Dr A", source="lab")
    assert (first.reference.image, first.reference.is_blast, first.reference.cell_class, first.reference.patient) == (b"1", True, "blast", "P1")
    assert (second.reference.is_blast, second.reference.microns_per_pixel) == (False, 0.5)


@pytest.mark.parametrize(
    ("name", "args", "options"),
    [
        ("diagnose", [b""], {}),
        ("diagnose_stream", [[]], {}),
        ("diagnose_specimen", [[b""]], {}),
        ("diagnose_slide", ["a"], {"on_server": True}),
        ("locate_cells", [b""], {}),
        ("measure_focus", [b""], {}),
        ("enhance_cell", [b""], {}),
        ("list_releases", [], {}),
        ("get_library", [], {}),
        ("add_references", [[]], {"source": "lab", "confirmed_by": "A", "idempotency_key": "k"}),
    ],
)
def test_a_refusal_is_a_service_error(call: Call, stub: FakeStub, name: str, args: list[Any], options: dict[str, str]) -> None:
    stub.fails = True
    with pytest.raises(ServiceError) as caught:
        call(name, *args, **options)
    assert (caught.value.code, caught.value.reason, caught.value.message) == ("RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED", "too much")


def test_a_specimen_without_its_aggregate_is_an_error(call: Call, stub: FakeStub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dl4all_client.client.read_specimen", lambda answer, on_image: None)
    monkeypatch.setattr("dl4all_client.aio.read_specimen", lambda answer, on_image: None)
    with pytest.raises(ServiceError, match="aggregate"):
        call("diagnose_specimen", [b"1"])
