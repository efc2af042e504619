"""Images, each with its own answer: judged, decided, counted, and written as a message."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator
from functools import partial

from dl4all.diagnosis.v1 import diagnosis_pb2
from services.common.admission.caller import Caller
from services.common.errors import DomainError
from services.common.guard import CallFailedError, guarded
from services.gateway.answers import check_size, diagnosis_message
from services.gateway.composition import Composer
from services.gateway.counting import SOURCES, count_image
from services.gateway.decision import DecidedImage
from services.gateway.image_room import ImageRoom
from services.gateway.request_context import UNKNOWN
from services.gateway.requests import RequestReader
from services.gateway.rules import image_rule
from services.gateway.run_stats import RunStats
from services.gateway.specimens import Tally
from services.gateway.streams import answered

Answer = diagnosis_pb2.DiagnoseStreamResponse
Requests = AsyncIterator[diagnosis_pb2.DiagnoseRequest]


class ImageAnswers:
    """Answers images.

    Args:
        requests: reads requests.
        composer: judges images.
        max_bytes: largest diagnosis that can be sent.
        room: memory for the images of streams.
        window: images of one stream that are read and not yet answered.
    """

    def __init__(self, requests: RequestReader, composer: Composer, max_bytes: int, room: ImageRoom, window: int) -> None:
        self._requests = requests
        self._composer = composer
        self._max_bytes = max_bytes
        self._room = room
        self._window = window

    async def answer(
        self, request: diagnosis_pb2.DiagnoseRequest, left: float | None, caller: Caller = UNKNOWN
    ) -> tuple[diagnosis_pb2.Diagnosis, DecidedImage, RunStats]:
        """Diagnose one image.

        Args:
            request: the image.
            left: seconds until the caller's deadline; None where it sets none.
            caller: who sends the image.

        Raises:
            DomainError: the image is refused, the gateway is overloaded, or a service is down.
        """
        started = time.perf_counter()
        encoded, context = self._requests.diagnose(request, left, caller)
        image = await self._composer.judge(encoded, context)
        decided = image.decide(image_rule(context.release))
        message = diagnosis_message(image, decided, context, 1000.0 * (time.perf_counter() - started))
        check_size(message, self._max_bytes, decided.counts.total)
        count_image(context.release.id, decided, (cell.judged for cell in image.cells), SOURCES.of(caller))
        return message, decided, image.stats

    def stream(self, requests: Requests, left: float | None, caller: Caller, method: str, tally: Tally) -> AsyncGenerator[Answer, None]:
        """Diagnose images as they come. An image that fails is an answer with its status.

        Args:
            requests: the images.
            left: as for ``answer``, of the whole stream.
            caller: who sends the images.
            method: full name of the RPC; its images are counted and logged as ``<method>#image``.
            tally: adds up the images.
        """
        deadline = None if left is None else time.monotonic() + left
        answer = partial(self._streamed, deadline, caller, method, tally)
        room = self._room.of(caller)
        return answered(requests, identify=lambda request: request.request_id, answer=answer, refuse=answer, room=room, window=self._window)

    async def _streamed(
        self,
        deadline: float | None,
        caller: Caller,
        method: str,
        tally: Tally,
        request: diagnosis_pb2.DiagnoseRequest,
        refusal: DomainError | None = None,
    ) -> Answer:
        try:
            async with guarded(f"{method}#image", request.request_id):
                if refusal is not None:
                    raise refusal
                diagnosis, decided, stats = await self.answer(request, None if deadline is None else deadline - time.monotonic(), caller)
                tally.add(decided, stats)
                return Answer(request_id=request.request_id, diagnosis=diagnosis)
        except CallFailedError as failed:
            tally.add_failure()
            return Answer(request_id=request.request_id, error=failed.status)
