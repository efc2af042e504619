"""Requests become plain values, or a typed error that names the field."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all.imaging.v1 import imaging_pb2
from services.common.admission.caller import Caller
from services.common.admission.priority import Priority
from services.common.errors import DomainError
from services.gateway.request_context import Display
from services.gateway.requests import RequestReader, slide_parts, slide_start
from services.gateway.settings import GatewaySettings
from services.gateway.slides import MAX_EXPLAINED
from tests.services.gateway.fakes import STORE

READER = RequestReader(GatewaySettings(max_image_bytes=1024), STORE)
Slide = diagnosis_pb2.DiagnoseSlideRequest


def test_a_request_becomes_image_and_context() -> None:
    display = diagnosis_pb2.DisplayOptions(neighbours=4, include_maps=True, include_crops=True)
    request = diagnosis_pb2.DiagnoseRequest(
        request_id="a", image=b"x", kind=imaging_pb2.IMAGE_KIND_FIELD, microns_per_pixel=0.25, release="dss", display=display
    )
    image, context = READER.diagnose(request, 5.0)
    assert (image.content, image.kind, image.microns_per_pixel) == (b"x", imaging_pb2.IMAGE_KIND_FIELD, 0.25)
    assert (context.request_id, context.release.id, context.display) == ("a", "dss-1", Display(4, maps=True, crops=True))
    assert 4.0 < context.deadline.left <= 5.0


def test_what_is_left_out_is_made_up_or_the_usual() -> None:
    _, context = READER.diagnose(diagnosis_pb2.DiagnoseRequest(image=b"x"), None)
    assert len(context.request_id) == 32
    assert context.release.id == STORE.index.default
    assert 59.0 < context.deadline.left <= 60.0
    slide = READER.slide(diagnosis_pb2.DiagnoseSlideStart(), None)
    assert 3599.0 < slide.context.deadline.left <= 3600.0
    assert (slide.explained, slide.start.request_id) == (MAX_EXPLAINED, slide.context.request_id)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (diagnosis_pb2.PRIORITY_UNSPECIFIED, Priority.INTERACTIVE),
        (diagnosis_pb2.PRIORITY_INTERACTIVE, Priority.INTERACTIVE),
        (diagnosis_pb2.PRIORITY_BATCH, Priority.BATCH),
    ],
)
def test_the_priority_and_the_caller_go_with_the_request(said: diagnosis_pb2.Priority.ValueType, meant: Priority) -> None:
    _, context = READER.diagnose(diagnosis_pb2.DiagnoseRequest(image=b"x", priority=said), None, Caller("a"))
    assert (context.priority, context.caller) == (meant, Caller("a"))


@pytest.mark.parametrize(
    ("changed", "reason", "field"),
    [
        ({"request_id": "\n"}, "IDENTIFIER_INVALID", "request_id"),
        ({"specimen": "x" * 129}, "IDENTIFIER_INVALID", "specimen"),
        ({"release": "\t"}, "IDENTIFIER_INVALID", "release"),
        ({"release": "nobody"}, "RELEASE_UNKNOWN", "release"),
        ({"microns_per_pixel": 11.0}, "MICRONS_PER_PIXEL_OUT_OF_RANGE", "microns_per_pixel"),
        ({"display": diagnosis_pb2.DisplayOptions(neighbours=21)}, "NEIGHBOURS_OUT_OF_RANGE", "display.neighbours"),
        ({"kind": 9}, "KIND_UNKNOWN", "kind"),
        ({"priority": 3}, "PRIORITY_UNKNOWN", "priority"),
        ({"image": bytes(1025)}, "IMAGE_TOO_LARGE", "image"),
    ],
)
def test_a_bad_field_is_named(changed: dict[str, Any], reason: str, field: str) -> None:
    with pytest.raises(DomainError) as caught:
        READER.diagnose(diagnosis_pb2.DiagnoseRequest(**changed), None)
    assert (caught.value.reason, caught.value.field) == (reason, field)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [({"explained_cells": 51}, "EXPLAINED_CELLS_OUT_OF_RANGE"), ({"release": "all_idb_patches"}, "RELEASE_TAKES_NO_SLIDES")],
)
def test_a_slide_that_cannot_be_meant_is_refused(changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(DomainError) as caught:
        READER.slide(diagnosis_pb2.DiagnoseSlideStart(**changed), None)
    assert caught.value.reason == reason


async def _each(*requests: Slide) -> AsyncIterator[Slide]:
    for request in requests:
        yield request


async def test_a_slide_begins_with_its_start() -> None:
    start = diagnosis_pb2.DiagnoseSlideStart(request_id="a")
    assert (await slide_start(_each(Slide(start=start)))).request_id == "a"
    for requests in (_each(), _each(Slide(chunk=imaging_pb2.SlideChunk(data=b"x")))):
        with pytest.raises(DomainError) as caught:
            await slide_start(requests)
        assert caught.value.reason == "SLIDE_START_MISSING"


async def test_only_an_upload_has_chunks_and_what_is_no_chunk_goes_on_as_an_empty_message() -> None:
    upload = READER.slide(diagnosis_pb2.DiagnoseSlideStart(source=imaging_pb2.SlideSource(upload_bytes=3)), None).start
    chunk, no_chunk = Slide(chunk=imaging_pb2.SlideChunk(data=b"abc")), Slide(start=diagnosis_pb2.DiagnoseSlideStart())
    first, second, third = [part async for part in slide_parts(upload, _each(chunk, no_chunk))]
    assert (first.start.source.upload_bytes, second.chunk.data, third.WhichOneof("part")) == (3, b"abc", None)
    held = READER.slide(diagnosis_pb2.DiagnoseSlideStart(source=imaging_pb2.SlideSource(path="a.svs")), None).start
    assert len([part async for part in slide_parts(held, _each(chunk))]) == 1


async def test_a_caller_that_sends_no_start_of_a_slide_is_refused_after_a_while() -> None:
    async def silent() -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield Slide()

    with pytest.raises(DomainError) as caught:
        await asyncio.wait_for(slide_start(silent(), seconds=0.05), 20)
    assert caught.value.reason == "SLIDE_START_MISSING"
