"""Images of confirmed cells become references, all or none, over fake services."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from dl4all.diagnosis.v1 import library_pb2
from services.common.errors import DomainError
from services.gateway.library_servicer import LibraryServicer
from services.gateway.settings import GatewaySettings
from tests.services.gateway.fakes import RELEASE, STORE, FakeServices, admission, located
from tests.services.gateway.test_servicer import Context

Request = library_pb2.AddReferencesRequest
START = Request(start=library_pb2.AddReferencesStart(idempotency_key="k", confirmed_by="Dr A", source="lab"))
CELL = Request(reference=library_pb2.ReferenceImage(image=b"x", is_blast=True, cell_class="blast", patient="P1"))


def _servicer(services: FakeServices) -> LibraryServicer:
    return LibraryServicer(GatewaySettings(), STORE, services.stubs, admission(1))


async def _add(services: FakeServices, *requests: Request) -> library_pb2.AddReferencesResponse:
    async def each() -> AsyncIterator[Request]:
        for request in requests:
            yield request

    return await _servicer(services).AddReferences(each(), cast(Any, Context()))


async def test_images_are_embedded_and_kept_in_one_call() -> None:
    services = FakeServices([located(0, total=1)])
    answer = await _add(services, START, CELL, CELL)
    assert (list(answer.addition_ids), answer.repeated_call, answer.release) == ([0, 1], False, RELEASE.id)
    (kept,) = services.requests("AddReferences")
    assert (kept.release, kept.idempotency_key, kept.confirmed_by, kept.source) == (RELEASE.id, "k", "Dr A", "lab")
    first = kept.references[0]
    assert (first.is_blast, first.cell_class, first.patient, first.image_sha256) == (True, "blast", "P1", "0" * 64)
    assert (list(first.embedding), first.place_embeddings.channels) == ([1.0, 0.0], 2)
    assert (first.center_x, first.center_y, first.radius) == (0.0, 2.0, 10.0)


async def test_each_image_has_the_usual_time_where_the_caller_sets_no_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    services, left, now = FakeServices([located(0, total=1)]), list[float](), [1000.0]
    monkeypatch.setattr("services.gateway.deadline.time.monotonic", lambda: now[0])
    classify = services.Classify

    async def slow(request: Any, *, timeout: float, **_: Any) -> Any:
        left.append(timeout)
        now[0] += 45.0
        return await classify(request)

    monkeypatch.setattr(services, "Classify", slow)
    await _add(services, START, *[CELL] * 3)
    assert left == [60.0] * 3


async def test_a_caller_who_sends_nothing_more_is_not_waited_for() -> None:
    async def requests() -> AsyncIterator[Request]:
        yield START
        await asyncio.sleep(60)

    servicer = LibraryServicer(GatewaySettings(default_deadline_seconds=0.05), STORE, FakeServices().stubs, admission(1))
    with pytest.raises(DomainError) as caught:
        await servicer.AddReferences(requests(), cast(Any, Context()))
    assert caught.value.reason == "DEADLINE_EXCEEDED"


@pytest.mark.parametrize(("changed", "reason"), [({"takes_additions": False}, "ADDITIONS_OFF"), ({"sha256": "f" * 64}, "RELEASE_DIFFERS")])
async def test_what_retrieval_cannot_keep_is_refused_before_an_image_is_looked_at(changed: dict[str, Any], reason: str) -> None:
    services = FakeServices([located(0, total=1)])

    def change(answer: Any) -> None:
        for name, value in changed.items():
            setattr(answer.library, name, value)

    services.changes["GetLibrary"] = change
    with pytest.raises(DomainError) as caught:
        await _add(services, START, CELL)
    assert caught.value.reason == reason
    assert [name for name, _ in services.called] == ["GetLibrary"]


def _start(**changed: str) -> Request:
    request = Request()
    request.CopyFrom(START)
    for name, value in changed.items():
        setattr(request.start, name, value)
    return request


def _cell(**changed: Any) -> Request:
    request = Request()
    request.CopyFrom(CELL)
    for name, value in changed.items():
        setattr(request.reference, name, value)
    return request


@pytest.mark.parametrize(
    ("requests", "reason", "image"),
    [
        ([], "ADDITIONS_START_MISSING", None),
        ([CELL], "ADDITIONS_START_MISSING", None),
        ([START, START], "ADDITIONS_START_MISSING", None),
        ([START], "BATCH_SIZE_OUT_OF_RANGE", None),
        ([START, *[CELL] * 257], "BATCH_SIZE_OUT_OF_RANGE", None),
        ([_start(idempotency_key=""), CELL], "TEXT_INVALID", None),
        ([_start(confirmed_by=" "), CELL], "TEXT_INVALID", None),
        ([_start(source="a/b"), CELL], "TEXT_INVALID", None),
        ([_start(idempotency_key="clé"), CELL], "IDENTIFIER_INVALID", None),
        ([_start(release="nobody"), CELL], "RELEASE_UNKNOWN", None),
        ([START, CELL, _cell(cell_class="")], "TEXT_INVALID", "1"),
        ([START, _cell(patient="x" * 129)], "TEXT_INVALID", "0"),
        ([START, _cell(microns_per_pixel=-1.0)], "MICRONS_PER_PIXEL_OUT_OF_RANGE", "0"),
    ],
)
async def test_a_call_that_cannot_be_meant_keeps_nothing_and_names_the_image(requests: list[Request], reason: str, image: str | None) -> None:
    services = FakeServices([located(0, total=1)])
    with pytest.raises(DomainError) as caught:
        await _add(services, *requests)
    assert (caught.value.reason, caught.value.metadata.get("image")) == (reason, image)
    assert services.requests("AddReferences") == []


async def test_an_image_without_a_cell_is_named() -> None:
    with pytest.raises(DomainError) as caught:
        await _add(FakeServices([located(total=0)]), START, CELL)
    assert (caught.value.reason, caught.value.metadata["image"]) == ("NO_CELLS", "0")


async def test_a_library_is_found_by_the_name_of_its_system() -> None:
    services = FakeServices()
    answer = await _servicer(services).GetLibrary(library_pb2.GetLibraryRequest(release="plain_resnet"), cast(Any, Context()))
    assert (answer.release, answer.library.patients) == (RELEASE.id, 3)
    assert services.requests("GetLibrary")[0].release == RELEASE.id
