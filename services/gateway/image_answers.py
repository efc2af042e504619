"""The images of a stream or a specimen, each with its own answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

from dl4all.diagnosis.v1 import diagnosis_pb2
from services.common.errors import DomainError
from services.common.guard import CallFailedError, guarded
from services.gateway.decision import DecidedImage
from services.gateway.run_stats import RunStats
from services.gateway.specimens import Tally
from services.gateway.streams import answered

Answer = diagnosis_pb2.DiagnoseStreamResponse
Diagnosed = tuple[diagnosis_pb2.Diagnosis, DecidedImage, RunStats]


def answer_images(
    requests: AsyncIterator[diagnosis_pb2.DiagnoseRequest],
    diagnose: Callable[[diagnosis_pb2.DiagnoseRequest], Awaitable[Diagnosed]],
    method: str,
    tally: Tally,
    window: int,
) -> AsyncGenerator[Answer, None]:
    """Diagnose images as they come. A failed image is answered with its status.

    Args:
        requests: the images.
        diagnose: diagnoses one.
        method: full name of the RPC; its images are counted and logged as ``<method>#image``.
        tally: adds up the images.
        window: most images that are read and not yet answered.
    """

    async def answer(request: diagnosis_pb2.DiagnoseRequest, refusal: DomainError | None = None) -> Answer:
        try:
            async with guarded(f"{method}#image", request.request_id):
                if refusal is not None:
                    raise refusal
                diagnosis, decided, stats = await diagnose(request)
                tally.add(decided, stats)
                return Answer(request_id=request.request_id, diagnosis=diagnosis)
        except CallFailedError as failed:
            tally.add_failure()
            return Answer(request_id=request.request_id, error=failed.status)

    return answered(requests, identify=lambda request: request.request_id, answer=answer, refuse=answer, window=window)
