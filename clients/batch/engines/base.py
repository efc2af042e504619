"""What runs the shards of a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from clients.batch.plan import Plan
from clients.batch.worker import Work

OnLook = Callable[[], None]
"""Called several times a second while an engine runs."""


class Engine(Protocol):
    """Runs shards. Nothing durable is in an engine: whatever it loses, a later run of the same batch goes on from the shards."""

    def run(self, plan: Plan, work: Work, on_look: OnLook) -> None:
        """Run every shard that is not finished; returns when all are.

        Args:
            plan: of the batch.
            work: how each worker works.
            on_look: shows progress.

        Raises:
            BatchError: workers end without progress; the message has what the last one said.
            KeyboardInterrupt: the workers were ended in order, and everything that is finished is kept.
        """
