"""Calls of a load test, and how they end: an answer, a refusal with a reason, or nothing that a caller can use."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from dl4all.diagnosis.v1 import diagnosis_pb2, diagnosis_pb2_grpc
from dl4all_client.channel import MAX_MESSAGE_BYTES, Tls
from dl4all_client.requests import priority_metadata
from tests.benchmarks.workloads import explained_request
from tests.load.targets import Target

Priority: TypeAlias = "diagnosis_pb2.Priority.ValueType"
INTERACTIVE: Final = diagnosis_pb2.PRIORITY_INTERACTIVE
BATCH: Final = diagnosis_pb2.PRIORITY_BATCH
CONNECTIONS: Final = 4
TIMEOUT: Final = 60.0
"""Deadline of a call, seconds."""


class Outcome(StrEnum):
    """How a call ended."""

    ANSWERED = "answered"
    WRONG = "wrong"
    """Answered, but not as the same image was answered before."""
    REFUSED = "refused"
    """RESOURCE_EXHAUSTED with a reason."""
    LOST = "lost"
    """Anything else: the image was accepted or sent, and there is no answer."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call that has ended.

    Attributes:
        intended: when it was to be sent, seconds since the start of its phase.
        ended: when it ended, likewise.
        outcome: how it ended.
        code: gRPC status.
        priority: of its image.
        retry_seconds: after which the refusal says to try again; None where it says nothing.
        cells: cells of the answer.
    """

    intended: float
    ended: float
    outcome: Outcome
    code: str
    priority: Priority
    retry_seconds: float | None = None
    cells: int = 0

    @property
    def latency(self) -> float:
        """Seconds from the intended time of sending, so that a generator that falls behind hides nothing."""
        return self.ended - self.intended


class Caller:
    """Sends the images of a workload to a gateway, in turn.

    Nothing is sent twice: retries of the channel are off, so that every failure is seen.

    Args:
        target: the gateway.
        images: encoded images.
        timeout: deadline of a call, seconds.
    """

    def __init__(self, target: Target, images: Sequence[bytes], timeout: float = TIMEOUT) -> None:
        self._target = target
        self._images = images
        self._timeout = timeout
        self._channels: list[grpc.aio.Channel] = []
        self._stubs: list[Any] = []
        self._turn = itertools.count()
        self._requests: dict[Priority, list[diagnosis_pb2.DiagnoseRequest]] = {}
        self._known: dict[int, tuple[int, int]] = {}
        self._origin = time.perf_counter()

    async def __aenter__(self) -> Self:
        self._channels = [_channel(self._target.address, self._target.tls) for _ in range(CONNECTIONS)]
        self._stubs = [diagnosis_pb2_grpc.DiagnosisServiceStub(channel) for channel in self._channels]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for channel in self._channels:
            await channel.close()

    def start(self) -> None:
        """Let the times of calls count from now."""
        self._origin = time.perf_counter()

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._origin

    async def call(self, intended: float, priority: Priority = INTERACTIVE) -> Call:
        """Send the next image and wait for the end of the call; no error of the service is raised."""
        turn = next(self._turn)
        number = turn % len(self._images)
        request = self._request(number, priority)
        try:
            answer = await self._stubs[turn % CONNECTIONS].Diagnose(request, timeout=self._timeout, metadata=priority_metadata(request))
        except grpc.aio.AioRpcError as error:
            refused, retry_seconds = _refusal(error)
            return Call(intended, self.now, Outcome.REFUSED if refused else Outcome.LOST, error.code().name, priority, retry_seconds)
        ended = self.now
        diagnosis = answer.diagnosis
        said = (diagnosis.finding, diagnosis.counts.total)
        same = self._known.setdefault(number, said) == said
        return Call(intended, ended, Outcome.ANSWERED if same else Outcome.WRONG, "OK", priority, cells=diagnosis.counts.total)

    def _request(self, number: int, priority: Priority) -> diagnosis_pb2.DiagnoseRequest:
        if priority not in self._requests:
            self._requests[priority] = [explained_request(image, priority) for image in self._images]
        return self._requests[priority][number]


def _channel(address: str, tls: Tls | None) -> grpc.aio.Channel:
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.enable_retries", 0),
        ("grpc.enable_http_proxy", 0),
        ("grpc.use_local_subchannel_pool", 1),
        *([("grpc.ssl_target_name_override", tls.server_name)] if tls is not None and tls.server_name else []),
    ]
    if tls is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, tls.credentials(), options=options)


def _refusal(error: grpc.aio.AioRpcError) -> tuple[bool, float | None]:
    """Whether the service refused the call with a reason because it has too much work, and after how many seconds it wants it again."""
    if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
        return False, None
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    reason, retry_seconds = False, None
    for detail in () if status is None else status.details:
        retry, info = error_details_pb2.RetryInfo(), error_details_pb2.ErrorInfo()
        if detail.Unpack(retry):
            retry_seconds = _seconds(retry.retry_delay)
        elif detail.Unpack(info):
            reason = bool(info.reason)
    return reason, retry_seconds


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
