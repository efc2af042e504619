"""Tests of the way between domain errors and statuses."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2

from services.common import errors
from services.common.status import STATUS_METADATA_KEY, error_of, error_of_rpc, grpc_code, status_of


def _rpc_error(code: grpc.StatusCode, status: status_pb2.Status | None = None, details: str = "raw text of the peer") -> grpc.aio.AioRpcError:
    pairs = () if status is None else ((STATUS_METADATA_KEY, status.SerializeToString()),)
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*pairs), details if status is None else status.message)


def test_a_field_at_fault_is_named() -> None:
    status = status_of(errors.InvalidRequestError("ODD", "It is odd.", field="cells", metadata={"a": "b"}))
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert status.code == code_pb2.INVALID_ARGUMENT
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(bad)
    assert (info.reason, info.domain, dict(info.metadata)) == ("ODD", "dl4all", {"a": "b"})
    assert [(v.field, v.description) for v in bad.field_violations] == [("cells", "It is odd.")]


def test_without_a_field_there_is_no_violation() -> None:
    assert len(status_of(errors.NotFoundError("X", "Not there.")).details) == 1


@pytest.mark.parametrize(
    "kind",
    [
        errors.InvalidRequestError,
        errors.NotFoundError,
        errors.FailedPreconditionError,
        errors.AlreadyExistsError,
        errors.OverloadedError,
        errors.DependencyUnavailableError,
        errors.DeadlineError,
        errors.InternalError,
    ],
)
def test_errors_survive_the_way_there_and_back(kind: type[errors.DomainError]) -> None:
    status = status_of(kind("REASON", "A message.", field="image", metadata={"k": "v"}))
    assert grpc_code(status) is grpc.StatusCode[kind.code]
    back = error_of(status)
    assert type(back) is kind
    assert (back.reason, back.message, back.field, back.metadata) == ("REASON", "A message.", "image", {"k": "v"})


def test_a_foreign_status_becomes_an_internal_error() -> None:
    back = error_of(status_pb2.Status(code=code_pb2.DATA_LOSS, message="lost"))
    assert (type(back), back.reason) == (errors.InternalError, "INTERNAL")


def test_what_another_service_refused_passes_through() -> None:
    status = status_of(errors.InvalidImageError("IMAGE_GREY", "The image is grey."))
    back = error_of_rpc(_rpc_error(grpc.StatusCode.INVALID_ARGUMENT, status), "patching", of_caller=[grpc.StatusCode.INVALID_ARGUMENT])
    assert (back.code, back.reason, back.field) == ("INVALID_ARGUMENT", "IMAGE_GREY", "image")
    assert error_of_rpc(_rpc_error(grpc.StatusCode.INVALID_ARGUMENT, status), "patching").code == "INTERNAL", "the gateway's own fault"


@pytest.mark.parametrize("kind", [errors.NotFoundError, errors.AlreadyExistsError, errors.OverloadedError])
def test_what_was_refused_of_the_caller_passes_through_but_not_that_a_service_is_busy(kind: type[errors.DomainError]) -> None:
    refused = error_of_rpc(
        _rpc_error(grpc.StatusCode[kind.code], status_of(kind("INNER", "Inner words."))), "retrieval", of_caller=[grpc.StatusCode[kind.code]]
    )
    assert (type(refused), refused.reason) == (kind, "INNER")
    busy = status_of(errors.OverloadedError("OVERLOADED", "Busy."))
    assert (
        error_of_rpc(_rpc_error(grpc.StatusCode.RESOURCE_EXHAUSTED, busy), "retrieval", of_caller=[grpc.StatusCode.RESOURCE_EXHAUSTED]).reason
        == "DEPENDENCY_OVERLOADED"
    )


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, errors.DependencyUnavailableError, "DEPENDENCY_UNAVAILABLE"),
        (grpc.StatusCode.CANCELLED, errors.DependencyUnavailableError, "DEPENDENCY_UNAVAILABLE"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.DeadlineError, "DEADLINE_EXCEEDED"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, errors.OverloadedError, "DEPENDENCY_OVERLOADED"),
        (grpc.StatusCode.INVALID_ARGUMENT, errors.InternalError, "INTERNAL"),
        (grpc.StatusCode.UNIMPLEMENTED, errors.InternalError, "INTERNAL"),
        (grpc.StatusCode.UNKNOWN, errors.InternalError, "INTERNAL"),
    ],
)
def test_bare_statuses_of_another_service(code: grpc.StatusCode, kind: type[errors.DomainError], reason: str) -> None:
    back = error_of_rpc(_rpc_error(code), "patching")
    assert (type(back), back.reason) == (kind, reason)
    assert "raw text" not in back.message
    if kind is errors.DependencyUnavailableError:
        assert back.metadata == {"dependency": "patching"}


def test_a_status_that_grpc_lost_while_it_wrote_is_to_be_tried_again() -> None:
    back = error_of_rpc(_rpc_error(grpc.StatusCode.INTERNAL, details="Internal error from Core"), "patching")
    assert (type(back), back.reason) == (errors.DependencyUnavailableError, "DEPENDENCY_UNAVAILABLE")
    assert type(error_of_rpc(_rpc_error(grpc.StatusCode.INTERNAL), "patching")) is errors.InternalError


@pytest.mark.parametrize("kind", [errors.NotFoundError, errors.InternalError, errors.AlreadyExistsError])
def test_what_is_wrong_between_services_is_internal(kind: type[errors.DomainError]) -> None:
    status = status_of(kind("INNER", "Inner words."))
    back = error_of_rpc(_rpc_error(grpc.StatusCode[kind.code], status), "retrieval")
    assert (type(back), back.reason) == (errors.InternalError, "INTERNAL")
    assert "Inner" not in back.message


def test_when_to_try_again_survives_the_way_there_and_back() -> None:
    status = status_of(errors.OverloadedError("OVERLOADED", "Busy.", retry_after=1.25))
    retry = error_details_pb2.RetryInfo()
    assert status.details[1].Unpack(retry)
    assert (retry.retry_delay.seconds, retry.retry_delay.nanos) == (1, 250_000_000)
    back = error_of(status)
    assert isinstance(back, errors.OverloadedError)
    assert (back.reason, back.retry_after) == ("OVERLOADED", 1.25)
    unknown = error_of(status_of(errors.OverloadedError("DISK_FULL", "Full.")))
    assert isinstance(unknown, errors.OverloadedError)
    assert unknown.retry_after is None


@pytest.mark.parametrize(("said", "told"), [(2.5, 2.5), (None, 1.0)])
def test_a_busy_dependency_says_when_to_try_again_or_soon_is_assumed(said: float | None, told: float) -> None:
    status = status_of(errors.OverloadedError("OVERLOADED", "Busy.", retry_after=said))
    for given in (status, None) if said is None else (status,):
        back = error_of_rpc(_rpc_error(grpc.StatusCode.RESOURCE_EXHAUSTED, given), "patching")
        assert isinstance(back, errors.OverloadedError)
        assert (back.reason, back.retry_after) == ("DEPENDENCY_OVERLOADED", told)
