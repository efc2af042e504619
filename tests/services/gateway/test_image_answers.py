"""Each image of a stream has its own answer, and a specimen counts it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dl4all.diagnosis.v1 import diagnosis_pb2
from services.common.admission.caller import Caller
from services.common.errors import InvalidRequestError, OverloadedError
from services.common.status import error_of
from services.gateway.composition import Composer
from services.gateway.image_answers import ImageAnswers
from services.gateway.image_room import ImageRoom
from services.gateway.requests import RequestReader
from services.gateway.settings import GatewaySettings
from services.gateway.specimens import Tally
from tests.services.gateway.fakes import STORE, FakeServices, admission, located


def _answers(services: FakeServices, max_bytes: int = 10**6) -> ImageAnswers:
    requests = RequestReader(GatewaySettings(max_image_bytes=1024), STORE)
    return ImageAnswers(requests, Composer(services.stubs, admission(2), 2), max_bytes, ImageRoom(10**8, 1.0), 2)


async def test_an_image_is_judged_decided_and_answered() -> None:
    diagnosis, decided, stats = await _answers(FakeServices([located(0, 1, total=2)])).answer(diagnosis_pb2.DiagnoseRequest(image=b"x"), None)
    assert (len(diagnosis.cells), decided.counts.total, stats.engine) == (2, 2, "onnxruntime")
    assert diagnosis.finding == diagnosis_pb2.FINDING_INDETERMINATE


async def test_an_answer_that_cannot_be_sent_is_refused() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await _answers(FakeServices([located(0, total=1)]), max_bytes=10).answer(diagnosis_pb2.DiagnoseRequest(image=b"x"), None)
    assert caught.value.reason == "ANSWER_TOO_LARGE"


async def test_one_bad_image_is_an_answer_and_a_failure_of_the_specimen() -> None:
    async def requests() -> AsyncIterator[diagnosis_pb2.DiagnoseRequest]:
        for name, image in (("a", b"x"), ("b", bytes(1025)), ("", b"x")):
            yield diagnosis_pb2.DiagnoseRequest(request_id=name, image=image)

    tally = Tally()
    answers = _answers(FakeServices([located(0, 1, total=2)]))
    found = {answer.request_id: answer async for answer in answers.stream(requests(), 30.0, Caller("a"), "/S/M", tally)}
    assert found["a"].diagnosis.request_id == "a"
    assert "1025 bytes" in found["b"].error.message
    assert found[""].WhichOneof("result") == "error"
    assert (tally.images.counts.total, tally.images.failed) == (2, 2)


async def test_the_deadline_of_the_stream_is_that_of_each_of_its_images(monkeypatch: pytest.MonkeyPatch) -> None:
    answers, left = _answers(FakeServices()), list[float]()

    async def note(request: diagnosis_pb2.DiagnoseRequest, seconds: float) -> Any:
        left.append(seconds)
        raise InvalidRequestError("X", "x")

    monkeypatch.setattr(answers, "answer", note)

    async def requests() -> AsyncIterator[diagnosis_pb2.DiagnoseRequest]:
        for name in "abc":
            yield diagnosis_pb2.DiagnoseRequest(request_id=name)

    assert len([answer async for answer in answers.stream(requests(), 30.0, Caller("a"), "/S/M", Tally())]) == 3
    assert left == sorted(left, reverse=True)
    assert all(0 < seconds <= 30.0 for seconds in left)


def _slowly(services: FakeServices, **settings: Any) -> ImageAnswers:
    """Answers that work on one image at once, each of which waits for a gate."""
    services.gate = asyncio.Event()
    composer = Composer(services.stubs, admission(1, **settings), 2)
    return ImageAnswers(RequestReader(GatewaySettings(), STORE), composer, 10**6, ImageRoom(10**8, 1.0), 4)


async def _sent(*images: tuple[str, diagnosis_pb2.Priority.ValueType]) -> AsyncIterator[diagnosis_pb2.DiagnoseRequest]:
    for name, priority in images:
        yield diagnosis_pb2.DiagnoseRequest(request_id=name, image=b"x", priority=priority)


async def test_an_image_of_a_stream_that_is_refused_is_an_answer_that_says_when_to_send_it_again_and_the_stream_goes_on() -> None:
    services = FakeServices([located(0, total=1)])
    answers = _slowly(services, batch_images_waiting=0)
    sent = _sent(("a", diagnosis_pb2.PRIORITY_BATCH), ("b", diagnosis_pb2.PRIORITY_BATCH), ("c", diagnosis_pb2.PRIORITY_INTERACTIVE))
    stream = answers.stream(sent, 30.0, Caller("a"), "/S/M", Tally())
    refused = await anext(stream)
    error = error_of(refused.error)
    assert (refused.request_id, error.reason) == ("b", "OVERLOADED")
    assert isinstance(error, OverloadedError)
    assert error.retry_after is not None
    assert services.gate is not None
    services.gate.set()
    assert [(answer.request_id, answer.WhichOneof("result")) async for answer in stream] == [("a", "diagnosis"), ("c", "diagnosis")]


async def test_images_of_a_closed_stream_that_wait_for_their_turn_never_begin() -> None:
    services = FakeServices([located(0, total=1)])
    answers = _slowly(services)
    batch = diagnosis_pb2.PRIORITY_BATCH
    stream = answers.stream(_sent(("a", batch), ("b", batch), ("c", batch)), 30.0, Caller("a"), "/S/M", Tally())
    waiting = asyncio.create_task(anext(stream))
    await asyncio.sleep(0.02)
    assert len(services.requests("LocateCells")) == 1
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await stream.aclose()
    assert services.gate is not None
    services.gate.set()
    await asyncio.sleep(0.02)
    assert [name for name, _ in services.called] == ["LocateCells", "Enhance"], "the image under way does not go on, the others never begin"
    assert answers._composer._admission._budget.held == 0
