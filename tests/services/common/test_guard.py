"""Tests of the guard, of the local stub and of the interceptor: one behaviour, with and without a wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from dl4all.classification.v1 import classification_pb2, classification_pb2_grpc
from dl4all.diagnosis.v1 import diagnosis_pb2, diagnosis_pb2_grpc
from dl4all.patching.v1 import patching_pb2, patching_pb2_grpc
from services.common import errors, guard
from services.common.admission.admission import Admission
from services.common.admission.priority import Priority, current_priority
from services.common.errors import DomainError
from services.common.guard import CallFailedError, guarded, request_id_of
from services.common.interceptor import EarlyCheck, GuardInterceptor
from services.common.local_stub import LocalContext, LocalStub
from services.common.settings import CommonSettings
from services.common.status import error_of

SECRET = "password in /etc/secret"

# The generated types make every method abstract; a fake has only the methods that are called.
ClassificationServicer: Any = classification_pb2_grpc.ClassificationServiceServicer
PatchingServicer: Any = patching_pb2_grpc.PatchingServiceServicer
DiagnosisServicer: Any = diagnosis_pb2_grpc.DiagnosisServiceServicer


@dataclass
class FakeClassification(ClassificationServicer):
    """Raises a given error, or waits, or answers with its request id."""

    error: BaseException | None = None
    wait: bool = False
    started: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    remaining: float | None = None
    metadata: dict[str, str] = field(default_factory=dict)

    async def Classify(self, request: Any, context: Any) -> classification_pb2.ClassifyResponse:  # noqa: N802
        self.remaining = context.time_remaining()
        self.metadata = {str(key): str(value) for key, value in context.invocation_metadata()}
        self.started.set()
        if self.error is not None:
            raise self.error
        if self.wait:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        return classification_pb2.ClassifyResponse(engine=request.request_id)


@dataclass
class FakePatching(PatchingServicer):
    """Streams three answers; raises or waits after the second if told to."""

    error: BaseException | None = None
    wait: bool = False
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def LocateCells(self, request: Any, context: Any) -> AsyncIterator[patching_pb2.LocateCellsResponse]:  # noqa: N802
        try:
            for number in range(3):
                if number == 2 and self.error is not None:
                    raise self.error
                if number == 2 and self.wait:
                    await asyncio.sleep(60)
                yield patching_pb2.LocateCellsResponse(header=patching_pb2.LocateCellsHeader(cell_count=number))
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        finally:
            self.closed.set()


class FakeDiagnosis(DiagnosisServicer):
    """Answers every request of a stream by its request id."""

    async def DiagnoseStream(self, requests: Any, context: Any) -> AsyncIterator[diagnosis_pb2.DiagnoseStreamResponse]:  # noqa: N802
        async for request in requests:
            yield diagnosis_pb2.DiagnoseStreamResponse(request_id=request.request.request_id)


_ADD = {
    "ClassificationService": (classification_pb2, classification_pb2_grpc),
    "PatchingService": (patching_pb2, patching_pb2_grpc),
    "DiagnosisService": (diagnosis_pb2, diagnosis_pb2_grpc),
}
Opener = Callable[..., Any]


@asynccontextmanager
async def _local(service: str, servicer: object) -> AsyncIterator[Any]:
    yield LocalStub(servicer, _ADD[service][0].DESCRIPTOR.services_by_name[service])


@asynccontextmanager
async def _channel(service: str, servicer: object, limit: int = 64, early: Mapping[str, EarlyCheck] | None = None) -> AsyncIterator[Any]:
    admission = Admission(CommonSettings(max_concurrent_calls=limit))
    server = grpc.aio.server(interceptors=[GuardInterceptor(admission, 60.0, early)])
    getattr(_ADD[service][1], f"add_{service}Servicer_to_server")(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(0)


@asynccontextmanager
async def _wired(service: str, servicer: object, limit: int = 64) -> AsyncIterator[Any]:
    async with _channel(service, servicer, limit) as channel:
        yield getattr(_ADD[service][1], f"{service}Stub")(channel)


both = pytest.mark.parametrize("opened", [_local, _wired], ids=["local", "wired"])


async def _failure(call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(call, 20)
    return caught.value


async def _collect(responses: AsyncIterator[patching_pb2.LocateCellsResponse], numbers: list[int]) -> None:
    async for response in responses:
        numbers.append(response.header.cell_count)  # noqa: PERF401


def _rich(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None
    assert error.code().value[0] == status.code
    assert error.details() == status.message
    return status


def _request(request_id: str = "r1") -> classification_pb2.ClassifyRequest:
    return classification_pb2.ClassifyRequest(request_id=request_id)


ERRORS: list[DomainError] = [
    errors.InvalidImageError("IMAGE_GREY", "The image is grey.", metadata={"mode": "L"}),
    errors.InvalidRequestError("NUMBER_ODD", "Naïve cells − 100 % odd.", field="cells"),
    errors.NotFoundError("RELEASE_UNKNOWN", "No such release."),
    errors.FailedPreconditionError("RELEASE_NOT_HELD", "Not held."),
    errors.BrokenReleaseError("RELEASE_BROKEN", "Broken."),
    errors.AlreadyExistsError("REQUEST_IN_FLIGHT", "Twice."),
    errors.OverloadedError("OVERLOADED", "Later."),
    errors.DependencyUnavailableError("MODEL_UNAVAILABLE", "Down.", metadata={"model": "m"}),
    errors.DeadlineError("DEADLINE_EXCEEDED", "Over."),
    errors.InternalError("INTERNAL", "Internal error; the log names it under request id r1."),
]


async def test_a_call_is_refused_on_its_headers_before_its_message_has_come() -> None:
    seen: list[tuple[Priority, float]] = []

    def refuse(context: Any) -> None:
        seen.append((current_priority(), context.time_remaining()))
        raise errors.OverloadedError("OVERLOADED", "Later.", retry_after=2.0)

    async def no_message() -> AsyncIterator[bytes]:
        await asyncio.sleep(60)
        yield b""

    method, servicer = "/dl4all.classification.v1.ClassificationService/Classify", FakeClassification()
    async with _channel("ClassificationService", servicer, early={method: refuse}) as channel:
        failed = await _failure(channel.stream_unary(method)(no_message(), timeout=10, metadata=(("dl4all-priority", "batch"),)))
    assert not servicer.started.is_set()
    refusal = error_of(_rich(failed))
    assert isinstance(refusal, errors.OverloadedError)
    assert (failed.code(), refusal.retry_after) == (grpc.StatusCode.RESOURCE_EXHAUSTED, 2.0)
    assert [(priority, 5 < left < 11) for priority, left in seen] == [(Priority.BATCH, True)]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
async def test_local_and_wired_failures_are_the_same(error: DomainError) -> None:
    async with (
        _local("ClassificationService", FakeClassification(error)) as local,
        _wired("ClassificationService", FakeClassification(error)) as wired,
    ):
        one, two = await _failure(local.Classify(_request())), await _failure(wired.Classify(_request()))
    assert one.code() is two.code() is grpc.StatusCode[error.code]
    assert _rich(one) == _rich(two)
    info = error_details_pb2.ErrorInfo()
    assert _rich(one).details[0].Unpack(info)
    assert (info.domain, info.reason, dict(info.metadata)) == ("dl4all", error.reason, error.metadata)
    rebuilt = error_of(_rich(two))
    assert (rebuilt.reason, rebuilt.message, rebuilt.field, rebuilt.metadata) == (error.reason, error.message, error.field, error.metadata)


@pytest.mark.parametrize("error", [ERRORS[0], RuntimeError(SECRET)], ids=["domain", "unexpected"])
async def test_local_and_wired_streams_fail_the_same_after_what_was_sent(error: BaseException) -> None:
    found = []
    for opened in (_local, _wired):
        async with opened("PatchingService", FakePatching(error)) as stub:
            numbers: list[int] = []
            failure = await _failure(_collect(stub.LocateCells(patching_pb2.LocateCellsRequest(request_id="r9")), numbers))
            found.append((numbers, _rich(failure).SerializeToString(deterministic=True)))
    assert found[0] == found[1]
    assert found[0][0] == [0, 1]
    assert SECRET.encode() not in found[0][1]


@both
@pytest.mark.parametrize("error", [RuntimeError(SECRET), KeyError(SECRET), ValueError(SECRET), AssertionError(SECRET), OSError(SECRET)])
async def test_text_of_unexpected_errors_never_reaches_the_caller(opened: Opener, error: Exception) -> None:
    async with opened("ClassificationService", FakeClassification(error)) as stub:
        failure = await _failure(stub.Classify(_request("the-request")))
    assert failure.code() is grpc.StatusCode.INTERNAL
    assert "the-request" in (failure.details() or "")
    said = repr(
        [failure.details(), failure.debug_error_string(), failure.trailing_metadata(), failure.initial_metadata(), str(failure), _rich(failure)]
    )
    assert SECRET not in said
    assert type(error).__name__ not in said


@both
async def test_answers_and_metadata_pass(opened: Opener) -> None:
    servicer = FakeClassification()
    async with opened("ClassificationService", servicer) as stub:
        response = await stub.Classify(_request("r7"), timeout=30.0, metadata=(("x-trace", "t1"),))
    assert response.engine == "r7"
    assert servicer.remaining is not None
    assert 0 < servicer.remaining <= 30.1
    assert servicer.metadata["x-trace"] == "t1"


@both
async def test_streams_in_both_directions(opened: Opener) -> None:
    async def requests() -> AsyncIterator[diagnosis_pb2.DiagnoseStreamRequest]:
        for request_id in ("a", "b"):
            yield diagnosis_pb2.DiagnoseStreamRequest(request=diagnosis_pb2.DiagnoseRequest(request_id=request_id))

    async with opened("DiagnosisService", FakeDiagnosis()) as stub:
        assert [response.request_id async for response in stub.DiagnoseStream(requests())] == ["a", "b"]


@both
async def test_a_timeout_ends_the_call_and_the_servicer(opened: Opener) -> None:
    servicer = FakeClassification(wait=True)
    async with opened("ClassificationService", servicer) as stub:
        failure = await _failure(stub.Classify(_request(), timeout=0.2))
        assert failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(servicer.cancelled.wait(), 20)


@both
async def test_a_timeout_ends_a_stream_and_the_servicer(opened: Opener) -> None:
    servicer = FakePatching(wait=True)
    async with opened("PatchingService", servicer) as stub:
        failure = await _failure(_collect(stub.LocateCells(patching_pb2.LocateCellsRequest(), timeout=0.3), []))
        assert failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(servicer.cancelled.wait(), 20)


@both
async def test_cancellation_reaches_the_servicer(opened: Opener) -> None:
    servicer = FakeClassification(wait=True)
    async with opened("ClassificationService", servicer) as stub:

        async def call() -> Any:
            return await stub.Classify(_request())

        task = asyncio.create_task(call())
        await asyncio.wait_for(servicer.started.wait(), 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(servicer.cancelled.wait(), 20)


@both
async def test_cancellation_of_a_stream_reaches_the_servicer(opened: Opener) -> None:
    servicer = FakePatching(wait=True)
    second = asyncio.Event()
    async with opened("PatchingService", servicer) as stub:

        async def call() -> None:
            async for response in stub.LocateCells(patching_pb2.LocateCellsRequest()):
                if response.header.cell_count == 1:
                    second.set()

        task = asyncio.create_task(call())
        await asyncio.wait_for(second.wait(), 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(servicer.cancelled.wait(), 20)


async def test_closing_a_local_stream_closes_the_servicer() -> None:
    servicer = FakePatching()
    async with _local("PatchingService", servicer) as stub:
        responses = stub.LocateCells(patching_pb2.LocateCellsRequest())
        await anext(responses)
        await responses.aclose()
        assert servicer.closed.is_set()


async def test_a_full_server_refuses_at_once() -> None:
    servicer = FakeClassification(wait=True)
    async with _wired("ClassificationService", servicer, limit=1) as stub:
        waiting = asyncio.ensure_future(_failure(stub.Classify(_request(), timeout=20)))
        await asyncio.wait_for(servicer.started.wait(), 20)
        refused = await _failure(stub.Classify(_request()))
        assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert error_of(_rich(refused)).reason == "OVERLOADED"
        assert not servicer.cancelled.is_set()
        waiting.cancel()


async def test_a_slot_is_free_again_after_every_end() -> None:
    failing = FakeClassification(errors.NotFoundError("X", "Not there."))
    async with _wired("ClassificationService", failing, limit=1) as stub:
        for _ in range(3):
            assert (await _failure(stub.Classify(_request()))).code() is grpc.StatusCode.NOT_FOUND
        failing.error = None
        for _ in range(3):
            assert (await stub.Classify(_request("ok"))).engine == "ok"


async def test_guard_lets_cancellation_through_and_hides_the_rest() -> None:
    with pytest.raises(asyncio.CancelledError):
        async with guarded("/m", "r"):
            raise asyncio.CancelledError
    with pytest.raises(CallFailedError) as caught:
        async with guarded("/m", "r"):
            raise RuntimeError(SECRET)
    assert SECRET not in str(caught.value)
    with pytest.raises(CallFailedError) as caught:
        async with guarded("/m", "r"):
            raise TimeoutError
    assert error_of(caught.value.status).reason == "DEADLINE_EXCEEDED"


def test_request_id_of() -> None:
    assert request_id_of(_request("a")) == "a"
    assert request_id_of(diagnosis_pb2.DiagnoseStreamRequest(request=diagnosis_pb2.DiagnoseRequest(request_id="b"))) == "b"
    assert request_id_of(iter([])) == ""


def test_local_context_without_deadline_and_after_it() -> None:
    assert LocalContext(None, ()).time_remaining() is None
    assert LocalContext(-1.0, ()).time_remaining() == 0.0
    assert LocalContext(5.0, (("a", "b"),)).invocation_metadata() == (("a", "b"),)


@dataclass(frozen=True)
class _Remaining:
    seconds: float | None

    def time_remaining(self) -> float | None:
        return self.seconds


@pytest.mark.parametrize(("seconds", "over"), [(None, False), (-0.1, True), (0.0, True), (0.1, True), (0.5, False), (30.0, False)])
def test_a_caller_that_gives_up_at_its_deadline_has_timed_out_before_our_deadline(seconds: float | None, over: bool) -> None:
    assert guard._is_over(cast(Any, _Remaining(seconds))) is over
