"""How far a batch is."""

from __future__ import annotations

from pathlib import Path

from clients.batch.lease import Claimer
from clients.batch.shard_file import write_finished
from clients.batch.status import StatusReader
from tests.clients.batch.making import failed_row, lines, planned, row


def test_it_counts_what_workers_say_and_what_is_finished(tmp_path: Path) -> None:
    store, plan = planned(tmp_path, 10, shard_size=4)
    reader = StatusReader(store, plan)
    assert (reader.read().images, reader.read().done, reader.read().is_finished) == (10, 0, False)
    lease = Claimer(store).claim(0)
    assert lease is not None
    lease.renew(3, 1)
    write_finished(store, 2, 1, lines(10)[8:], [failed_row(8), row(9)])
    status = reader.read()
    assert (status.done, status.failed, status.is_finished) == (5, 2, False)
    first, second, third = status.shards
    assert (first.is_held, first.token, first.is_finished) == (True, 1, False)
    assert (second.is_held, second.token) == (False, 0)
    assert (third.is_finished, third.is_held) == (True, False)
    lease.release(3, 1)
    assert not reader.read().shards[0].is_held
    for shard in range(2):
        part = lines(10)[4 * shard : 4 * shard + 4]
        write_finished(store, shard, 2, part, [row(line.number) for line in part])
    assert reader.read().is_finished
