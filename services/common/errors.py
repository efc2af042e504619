"""Domain errors. They do not depend on gRPC; ``status.py`` turns them into statuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class DomainError(Exception):
    """Base of every error that a caller may see.

    Args:
        reason: machine-readable reason, UPPER_SNAKE_CASE, stable across versions.
        message: one or two sentences for people: what is wrong and what to do.
        field: the request field that is at fault, if one is.
        metadata: further machine-readable facts.
    """

    code: ClassVar[str] = "INTERNAL"
    """Name of the canonical gRPC status."""

    def __init__(self, reason: str, message: str, *, field: str = "", metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.field = field
        self.metadata = dict(metadata or {})


class InvalidRequestError(DomainError):
    """A field of the request is missing, malformed or out of range."""

    code = "INVALID_ARGUMENT"


class InvalidImageError(InvalidRequestError):
    """The image is refused: unreadable, of a refused kind, too small, too large or blank."""

    def __init__(self, reason: str, message: str, *, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(reason, message, field="image", metadata=metadata)


class NotFoundError(DomainError):
    """The request names something that does not exist."""

    code = "NOT_FOUND"


class FailedPreconditionError(DomainError):
    """This service lacks something that the request needs, such as the release."""

    code = "FAILED_PRECONDITION"


class AlreadyExistsError(DomainError):
    """The same identifier is already in use."""

    code = "ALREADY_EXISTS"


class OverloadedError(DomainError):
    """The service has as much work as it accepts; try again later.

    Args:
        retry_after: seconds after which to try again, above 0; None where nobody can tell.
    """

    code = "RESOURCE_EXHAUSTED"

    def __init__(
        self, reason: str, message: str, *, field: str = "", metadata: Mapping[str, str] | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(reason, message, field=field, metadata=metadata)
        self.retry_after = retry_after


class DependencyUnavailableError(DomainError):
    """Something that this service needs is down."""

    code = "UNAVAILABLE"


class DeadlineError(DomainError):
    """The caller's deadline has passed."""

    code = "DEADLINE_EXCEEDED"


class InternalError(DomainError):
    """An unexpected failure; its details are in the log under the request id, never in the answer."""

    code = "INTERNAL"


class BrokenReleaseError(FailedPreconditionError):
    """A release folder is incomplete, malformed or does not match its checksums."""


class ConfigurationError(FailedPreconditionError):
    """A setting, or a file that a setting names, cannot be used."""
