"""JSON logs on standard error, one object a line."""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.typing import EventDict, WrappedLogger

from services.common.tracing import trace_id


def configure_logs(level: str, service: str = "") -> None:
    """Set up structured logs for this process.

    Args:
        level: DEBUG, INFO, WARNING or ERROR.
        service: name that every line carries, where several services share one log.
    """

    def add_service(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        if service:
            event["service"] = service
        return event

    structlog.configure(
        processors=[
            add_service,
            _add_trace_id,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _add_trace_id(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    if identifier := trace_id():
        event["trace_id"] = identifier
    return event
