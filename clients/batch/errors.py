"""Errors of batches. Each message says what to do."""

from __future__ import annotations


class BatchError(Exception):
    """A batch cannot be planned, worked on or merged."""


class LeaseLostError(BatchError):
    """Another worker has taken over the shard."""


class GatewayNotReadyError(BatchError):
    """The gateway was not ready for too long. What is finished is kept; the batch can be resumed."""
