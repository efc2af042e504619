"""Errors of the services as one exception with code, reason, message and field."""

from __future__ import annotations

from collections.abc import Mapping

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status


class ServiceError(Exception):
    """A call was refused or failed.

    Attributes:
        code: canonical gRPC status, such as INVALID_ARGUMENT.
        reason: machine-readable reason, such as IMAGE_TRUNCATED; the code itself where the service gave none.
        message: for people.
        field: the request field at fault, or empty.
        metadata: further machine-readable facts, such as the dependency that is down.
        retry_after: seconds after which the service asks to try again; None where it does not say.
    """

    def __init__(
        self, code: str, reason: str, message: str, field: str = "", metadata: Mapping[str, str] | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(f"{reason}: {message}")
        self.code = code
        self.reason = reason
        self.message = message
        self.field = field
        self.metadata = dict(metadata or {})
        self.retry_after = retry_after

    @classmethod
    def from_status(cls, status: status_pb2.Status) -> ServiceError:
        """Read a rich status."""
        code = code_pb2.Code.Name(status.code)
        reason, field, metadata, retry_after = code, "", {}, None
        for detail in status.details:
            info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
            if detail.Unpack(info):
                reason, metadata = info.reason, dict(info.metadata)
            elif detail.Unpack(bad) and bad.field_violations:
                field = bad.field_violations[0].field
            elif detail.Unpack(retry):
                retry_after = retry.retry_delay.ToTimedelta().total_seconds()
        return cls(code, reason, status.message, field, metadata, retry_after)

    @classmethod
    def from_rpc(cls, error: grpc.RpcError, note: str = "") -> ServiceError:
        """Read a failed call.

        Args:
            error: as gRPC raised it.
            note: a sentence for calls that no server has answered, such as which proxy they took.
        """
        status = rpc_status.from_call(error)  # type: ignore[arg-type]
        if status is not None:
            return cls.from_status(status)
        code = error.code().name  # type: ignore[attr-defined]
        message = error.details() or "The call failed."  # type: ignore[attr-defined]
        if note and code in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
            message = f"{message.rstrip('.')}. {note}"
        return cls(code, code, message)
