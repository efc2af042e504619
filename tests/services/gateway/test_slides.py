"""A slide over fake services: progress, cells as they are judged, the most suspicious explained, one slide at the end."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dl4all.imaging.v1 import imaging_pb2
from dl4all.patching.v1 import patching_pb2
from services.common.errors import DependencyUnavailableError, InternalError, OverloadedError
from services.gateway.cells import JudgedCell
from services.gateway.decision import Counts
from services.gateway.fusion import CellVerdict
from services.gateway.judging import CellAnswer, CellEvidence
from services.gateway.rules import image_rule
from services.gateway.slides import JudgedSlide, MostSuspicious, SlideComposer, SlideProgress
from tests.services.gateway.fakes import BLAST, NORMAL, RELEASE, Down, FakeServices, context, slide_cells

FACTS = patching_pb2.LocateSlideResponse(facts=imaging_pb2.SlideFacts(width=4000, height=3000, red_cell_radius=30.0, notes=["PHANTOM"]))


def _end(cells: int) -> patching_pb2.LocateSlideResponse:
    return patching_pb2.LocateSlideResponse(end=patching_pb2.SlideEnd(cell_count=cells, sha256="5" * 64, blur=2.0))


def _services(*parts: patching_pb2.LocateSlideResponse) -> FakeServices:
    services = FakeServices(logits=lambda cell: BLAST if cell % 3 == 2 else NORMAL, votes=lambda cell: float(cell % 3 == 2))
    services.slide = list(parts)
    return services


async def _requests() -> AsyncIterator[patching_pb2.LocateSlideRequest]:
    yield patching_pb2.LocateSlideRequest()


async def _judge(services: FakeServices, explained: int = 2, composer: SlideComposer | None = None, **display: Any) -> tuple[list[Any], JudgedSlide]:
    made = composer or SlideComposer(services.stubs, slides_in_flight=1, batches_in_flight=2)
    *parts, last = [part async for part in made.judge(_requests(), context(**display), explained)]
    assert isinstance(last, JudgedSlide)
    return parts, last


async def test_every_cell_is_streamed_and_counted_and_progress_comes_last() -> None:
    parts, slide = await _judge(_services(FACTS, slide_cells(0, 1), slide_cells(2), _end(3)))
    streamed = [cell for part in parts if isinstance(part, list) for cell in part]
    assert sorted(c.judged.cell_id for c in streamed) == [0, 1, 2]
    assert not any(c.evidence.pixels or c.evidence.neighbours for c in streamed), "data for explanations only is not streamed"
    assert slide.counts == Counts(3, 1, 0)
    assert parts[-1] == SlideProgress(cells_found=3, cells_judged=3)


async def test_doubts_of_patching_reach_the_caller() -> None:
    facts = patching_pb2.LocateSlideResponse(facts=imaging_pb2.SlideFacts(width=4000, height=3000, notes=["COLOURS_DOUBTED"]))
    _, slide = await _judge(_services(facts, _end(0)))
    assert slide.facts is not None
    assert list(slide.facts.notes) == list(slide.quality.notes) == ["COLOURS_DOUBTED"]
    assert "COLOURS_DOUBTED" in slide.decide(image_rule(RELEASE)).reasons


async def test_what_the_slide_is_comes_from_its_facts_and_its_end() -> None:
    _, slide = await _judge(_services(FACTS, _end(0)))
    assert "PHANTOM" in slide.decide(image_rule(RELEASE)).reasons
    assert (slide.quality.width, slide.quality.blur, slide.quality.red_cell_radius) == (4000, 2.0, 30.0)


async def test_the_most_suspicious_cells_are_explained_on_the_pixels_that_were_judged() -> None:
    services = _services(FACTS, slide_cells(*range(6)), _end(6))
    _, slide = await _judge(services, maps=True, latent_map=True)
    assert [c.judged.cell_id for c in slide.explained] == [2, 5]
    assert all(c.evidence.neighbours and c.evidence.pixels for c in slide.explained)
    judged, again = services.requests("Classify")
    assert (judged.include_place_embeddings, again.include_place_embeddings) == (False, True)
    assert [c.pixels for c in again.cells] == [c.pixels for c in judged.cells if c.cell_id in (2, 5)]
    assert [r.reference_id for r in slide.latent_map] == ["a/1"]


@pytest.mark.parametrize(
    "parts",
    [[FACTS], [FACTS, slide_cells(0)], [_end(0)], [FACTS, slide_cells(0), _end(2)], [FACTS, slide_cells(1), _end(1)]],
    ids=["no end", "cut off", "no facts", "cells missing", "wrong number"],
)
async def test_a_slide_that_was_not_read_to_its_end_has_no_diagnosis(parts: list[patching_pb2.LocateSlideResponse]) -> None:
    with pytest.raises(InternalError):
        await _judge(_services(*parts))


async def test_more_slides_than_slots_are_refused_at_once_and_a_slot_comes_free() -> None:
    services = _services(FACTS, slide_cells(0), _end(1))
    services.gate = asyncio.Event()
    composer = SlideComposer(services.stubs, slides_in_flight=1, batches_in_flight=2)
    first = asyncio.create_task(_judge(services, composer=composer))
    for _ in range(20):
        await asyncio.sleep(0)
    with pytest.raises(OverloadedError) as caught:
        await _judge(services, composer=composer)
    assert caught.value.reason == "SLIDES_BUSY"
    services.gate.set()
    await first
    await _judge(services, composer=composer)


async def test_a_service_that_fails_ends_the_slide_and_frees_its_slot() -> None:
    services = _services(FACTS, slide_cells(0), slide_cells(1), _end(2))
    services.failures["Enhance"] = Down()
    composer = SlideComposer(services.stubs, slides_in_flight=1, batches_in_flight=1)
    with pytest.raises(DependencyUnavailableError):
        await _judge(services, composer=composer)
    services.failures.clear()
    assert (await _judge(services, composer=composer))[1].counts.total == 2


async def test_a_reader_that_goes_away_stops_the_work() -> None:
    services = _services(FACTS, *(slide_cells(n) for n in range(100)), _end(100))
    composer = SlideComposer(services.stubs, slides_in_flight=1, batches_in_flight=1)
    parts = composer.judge(_requests(), context(), 2)
    await anext(parts)
    await parts.aclose()
    seen = len(services.requests("Enhance"))
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(services.requests("Enhance")) == seen < 100


def _cell(number: int, probability: float) -> CellAnswer:
    return CellAnswer(JudgedCell(number, CellVerdict(probability, (), False, False, ())), CellEvidence(imaging_pb2.Cell()))


def test_of_equally_suspicious_cells_the_earlier_is_kept() -> None:
    most = MostSuspicious(2)
    for number, probability in enumerate([0.5, 0.9, 0.5, math.nan, 0.1]):
        most.add(_cell(number, probability))
    assert [c.judged.cell_id for c in most.sorted()] == [1, 0]
    none = MostSuspicious(0)
    none.add(_cell(0, 1.0))
    assert none.sorted() == []
