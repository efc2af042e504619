"""Each image of a stream has its own answer, and a specimen counts it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from dl4all.diagnosis.v1 import diagnosis_pb2
from services.common.admission.caller import Caller
from services.common.errors import InvalidRequestError
from services.gateway.composition import Composer
from services.gateway.image_answers import ImageAnswers
from services.gateway.image_room import ImageRoom
from services.gateway.image_slots import ImageSlots
from services.gateway.requests import RequestReader
from services.gateway.settings import GatewaySettings
from services.gateway.specimens import Tally
from tests.services.gateway.fakes import STORE, FakeServices, located


def _answers(services: FakeServices, max_bytes: int = 10**6) -> ImageAnswers:
    requests = RequestReader(GatewaySettings(max_image_bytes=1024), STORE)
    return ImageAnswers(requests, Composer(services.stubs, ImageSlots(2), 2), max_bytes, ImageRoom(10**8, 1.0), 2)


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
