"""Memory for the images of streams that wait or are judged, and for their answers until they are read."""

from __future__ import annotations

from functools import partial
from typing import Final

from dl4all.diagnosis.v1 import diagnosis_pb2
from services.common.admission.budget import Budget, Holding
from services.common.admission.caller import Caller
from services.common.admission.connections import disconnect

_RESERVE: Final = 9
_LONGEST_WAIT: Final = 120.0


class ImageRoom:
    """Memory that all streams of a gateway share.

    Args:
        limit: bytes of images and unread answers.
        patience: seconds that an answer may stay unread while others wait for room; then the connection of its caller is closed.
    """

    def __init__(self, limit: int, patience: float) -> None:
        self._budget = Budget(limit, limit // _RESERVE, patience, _LONGEST_WAIT, name="stream bytes")

    def of(self, caller: Caller) -> RoomOfCaller:
        """The room as one caller uses it."""
        return RoomOfCaller(self._budget, caller)


class RoomOfCaller:
    """See ``streams.StreamRoom``."""

    def __init__(self, budget: Budget, caller: Caller) -> None:
        self._budget = budget
        self._caller = caller

    async def taken(self, request: diagnosis_pb2.DiagnoseRequest) -> Holding:
        """See ``streams.StreamRoom``."""
        return await self._budget.wait(self._caller, max(1, len(request.image)), partial(disconnect, self._caller.peer))

    def unread(self, holding: Holding, answer: diagnosis_pb2.DiagnoseStreamResponse) -> None:
        """See ``streams.StreamRoom``."""
        holding.resize(max(holding.amount, answer.ByteSize()))
        holding.idle()
