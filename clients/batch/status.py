"""How far a batch is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clients.batch.lease import newest
from clients.batch.plan import Plan
from clients.batch.shard_file import find_finished
from clients.batch.store import Store


@dataclass(frozen=True)
class ShardStatus:
    """How far a shard is.

    Attributes:
        shard: its number.
        images: its images.
        done: images with a row, as the worker last said.
        failed: those of them without a diagnosis.
        is_finished: whether its file is written.
        token: of the newest lease; how often the shard has changed hands. 0 where no worker has begun it.
        is_held: whether a worker had it when the worker last said something.
    """

    shard: int
    images: int
    done: int
    failed: int
    is_finished: bool
    token: int
    is_held: bool


@dataclass(frozen=True)
class Status:
    """How far a batch is."""

    shards: Sequence[ShardStatus]

    @property
    def images(self) -> int:
        """Lines of the manifest."""
        return sum(shard.images for shard in self.shards)

    @property
    def done(self) -> int:
        """Images with a row."""
        return sum(shard.done for shard in self.shards)

    @property
    def failed(self) -> int:
        """Images with a row and no diagnosis."""
        return sum(shard.failed for shard in self.shards)

    @property
    def is_finished(self) -> bool:
        """Whether every shard is finished."""
        return all(shard.is_finished for shard in self.shards)


class StatusReader:
    """Reads how far a batch is, again and again; what is finished is read once.

    Args:
        store: of the batch.
        plan: of the batch.
    """

    def __init__(self, store: Store, plan: Plan) -> None:
        self._store = store
        self._plan = plan
        self._finished: dict[int, ShardStatus] = {}

    def read(self) -> Status:
        """How far the batch is now."""
        return Status([self._finished.get(shard) or self._read(shard) for shard in range(self._plan.shards)])

    def _read(self, shard: int) -> ShardStatus:
        images = self._plan.size_of(shard)
        claim = newest(self._store, shard)
        file = find_finished(self._store, shard)
        if file is not None:
            self._finished[shard] = ShardStatus(shard, images, file.images, file.failed, True, claim.token, False)
            return self._finished[shard]
        beat = claim.beat
        if beat is None:
            return ShardStatus(shard, images, 0, 0, False, claim.token, False)
        return ShardStatus(shard, images, beat.done, beat.failed, False, claim.token, not beat.is_released)
