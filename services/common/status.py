"""One module that turns domain errors into gRPC statuses, and statuses of other services into domain errors."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from services.common import errors
from services.common.errors import DomainError

DOMAIN: Final = "dl4all"
OVERLOADED: Final = "OVERLOADED"
"""Reason of a server that has as many calls under way as it accepts (``guard.py``); other reasons concern the request itself."""
DEPENDENCY_RETRY_SECONDS: Final = 1.0
"""When to try again where a dependency is overloaded and does not say when."""
_STATUS_LOST: Final = "Internal error from Core"
"""Text of asyncio gRPC, instead of the service's status, where a service ended a call that was still being written to (grpc/grpc#36066)."""
STATUS_METADATA_KEY: Final = "grpc-status-details-bin"
_BY_CODE: Final[dict[str, type[DomainError]]] = {
    "INVALID_ARGUMENT": errors.InvalidRequestError,
    "NOT_FOUND": errors.NotFoundError,
    "FAILED_PRECONDITION": errors.FailedPreconditionError,
    "ALREADY_EXISTS": errors.AlreadyExistsError,
    "RESOURCE_EXHAUSTED": errors.OverloadedError,
    "UNAVAILABLE": errors.DependencyUnavailableError,
    "DEADLINE_EXCEEDED": errors.DeadlineError,
}


def status_of(error: DomainError) -> status_pb2.Status:
    """Rich status of a domain error: ErrorInfo always, BadRequest where a field is at fault, RetryInfo where it says when to try again."""
    details = [_pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata))]
    if error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.message)
        details.append(_pack(error_details_pb2.BadRequest(field_violations=[violation])))
    if isinstance(error, errors.OverloadedError) and error.retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(round(1e9 * error.retry_after))
        details.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status_pb2.Status(code=code_pb2.Code.Value(error.code), message=error.message, details=details)


def grpc_code(status: status_pb2.Status) -> grpc.StatusCode:
    """The gRPC status code of a rich status."""
    return grpc.StatusCode[code_pb2.Code.Name(status.code)]


def error_of(status: status_pb2.Status) -> DomainError:
    """Domain error that a rich status carries; a code without a domain error becomes an internal error."""
    kind = _BY_CODE.get(code_pb2.Code.Name(status.code), errors.InternalError)
    reason, field, metadata = "INTERNAL", "", {}
    retry_after: float | None = None
    for detail in status.details:
        info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(bad) and bad.field_violations:
            field = bad.field_violations[0].field
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.ToNanoseconds() / 1e9
    if kind is errors.OverloadedError:
        return errors.OverloadedError(reason, status.message, field=field, metadata=metadata, retry_after=retry_after)
    return _rebuilt(kind, reason, status.message, field, metadata)


def error_of_rpc(error: grpc.aio.AioRpcError, dependency: str, *, of_caller: Collection[grpc.StatusCode] = ()) -> DomainError:
    """Domain error for a failed call of another service.

    A refusal of the caller's own image, slide or reference passes through. Any other refused argument came from the gateway and is INTERNAL. A
    fault between the services themselves becomes UNAVAILABLE or INTERNAL.

    Args:
        error: the failed call.
        dependency: name of the service that was called.
        of_caller: statuses by which the service refuses what the caller sent.
    """
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    if status is not None and error.code() in of_caller:
        refused = error_of(status)
        if refused.reason != OVERLOADED:
            return refused
    if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
        return errors.InternalError("INTERNAL", f"The {dependency} service refused what the gateway sent.")
    if status is not None and error.code() in (
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    ):
        return error_of(status)
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.DeadlineError("DEADLINE_EXCEEDED", "The caller's deadline has passed.")
    if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        message = f"The {dependency} service cannot be reached; try again later."
        return errors.DependencyUnavailableError("DEPENDENCY_UNAVAILABLE", message, metadata={"dependency": dependency})
    if error.code() is grpc.StatusCode.INTERNAL and error.details() == _STATUS_LOST:
        message = f"The {dependency} service ended the call before all was sent, and its reason was lost on the way; try again."
        return errors.DependencyUnavailableError("DEPENDENCY_UNAVAILABLE", message, metadata={"dependency": dependency})
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
        message = f"The {dependency} service has as much work as it accepts; try again later."
        return errors.OverloadedError("DEPENDENCY_OVERLOADED", message, metadata={"dependency": dependency}, retry_after=_retry_after(status))
    return errors.InternalError("INTERNAL", f"The {dependency} service failed with {error.code().name}.")


def _retry_after(status: status_pb2.Status | None) -> float:
    """Seconds after which an overloaded dependency wants to be called again."""
    said = None if status is None else error_of(status)
    if isinstance(said, errors.OverloadedError) and said.retry_after is not None:
        return said.retry_after
    return DEPENDENCY_RETRY_SECONDS


def _rebuilt(kind: type[DomainError], reason: str, message: str, field: str, metadata: dict[str, str]) -> DomainError:
    return kind(reason, message, field=field, metadata=metadata)


def _pack(message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
