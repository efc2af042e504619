"""Each image of a stream has its own answer, and a specimen counts it."""

from __future__ import annotations

from collections.abc import AsyncIterator

from dl4all.diagnosis.v1 import diagnosis_pb2
from services.common.errors import InvalidImageError
from services.gateway.decision import Counts, ImageRule, decide_image
from services.gateway.image_answers import Diagnosed, answer_images
from services.gateway.run_stats import RunStats
from services.gateway.specimens import Tally

RULE = ImageRule(((100, 3),), 100, 0.05, True)


async def _diagnose(request: diagnosis_pb2.DiagnoseRequest) -> Diagnosed:
    if not request.image:
        raise InvalidImageError("IMAGE_EMPTY", "The image is empty.")
    decided = decide_image(request.request_id, Counts(4, 0, 0), RULE, phantom=False, single_cell=False, poor=())
    return diagnosis_pb2.Diagnosis(request_id=request.request_id), decided, RunStats()


async def test_one_bad_image_is_an_answer_and_a_failure_of_the_specimen() -> None:
    async def requests() -> AsyncIterator[diagnosis_pb2.DiagnoseRequest]:
        for name, image in (("a", b"x"), ("b", b""), ("", b"x")):
            yield diagnosis_pb2.DiagnoseRequest(request_id=name, image=image)

    tally = Tally()
    answers = {a.request_id: a async for a in answer_images(requests(), _diagnose, "/S/M", tally, 2)}
    assert answers["a"].diagnosis.request_id == "a"
    assert (answers["b"].error.message, answers[""].WhichOneof("result")) == ("The image is empty.", "error")
    assert (tally.images.counts.total, tally.images.failed) == (4, 2)
