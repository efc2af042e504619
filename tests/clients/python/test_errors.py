"""Rich statuses as exceptions of the SDK."""

from __future__ import annotations

from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from dl4all_client import ServiceError
from services.common.errors import InvalidImageError
from services.common.status import status_of


def test_what_the_services_say_is_what_the_caller_reads() -> None:
    status = status_of(InvalidImageError("IMAGE_GREY", "Send an RGB image."))
    error = ServiceError.from_status(status)
    assert (error.code, error.reason, error.message, error.field) == ("INVALID_ARGUMENT", "IMAGE_GREY", "Send an RGB image.", "image")
    assert str(error) == "IMAGE_GREY: Send an RGB image."


def test_a_status_without_details_has_its_code_for_a_reason() -> None:
    error = ServiceError.from_status(status_pb2.Status(code=14, message="not there"))
    assert (error.code, error.reason, error.field) == ("UNAVAILABLE", "UNAVAILABLE", "")


def test_details_that_are_not_known_are_passed_over() -> None:
    unknown = any_pb2.Any()
    unknown.Pack(error_details_pb2.DebugInfo(detail="x"))
    empty = any_pb2.Any()
    empty.Pack(error_details_pb2.BadRequest())
    error = ServiceError.from_status(status_pb2.Status(code=3, message="m", details=[unknown, empty]))
    assert (error.reason, error.field) == ("INVALID_ARGUMENT", "")
