"""Files of finished shards."""

from __future__ import annotations

from pathlib import Path

import pytest

from clients.batch.errors import BatchError
from clients.batch.shard_file import find_finished, finished_name, read_finished, write_finished
from tests.clients.batch.making import failed_row, lines, planned, row


def test_a_shard_is_written_whole_and_read(tmp_path: Path) -> None:
    store, _ = planned(tmp_path, 4)
    assert finished_name(store, 0) is None
    assert find_finished(store, 0) is None
    write_finished(store, 0, 3, lines(4), [row(0), failed_row(1), row(2), row(3)])
    found = find_finished(store, 0)
    assert found is not None
    assert (found.images, found.failed) == (4, 1)
    assert found.name == "shards/000000/part-000003.parquet"
    assert read_finished(store, found.name)["line"].to_pylist() == [0, 1, 2, 3]


@pytest.mark.parametrize("numbers", [[0, 1, 2], [0, 1, 2, 2], [0, 1, 3, 2], [0, 1, 2, 3, 4]])
def test_rows_that_are_not_those_of_the_lines_are_never_written(tmp_path: Path, numbers: list[int]) -> None:
    store, _ = planned(tmp_path, 4)
    with pytest.raises(BatchError, match="exactly one row"):
        write_finished(store, 0, 1, lines(4), [row(number) for number in numbers])
    assert finished_name(store, 0) is None


def test_the_highest_token_counts(tmp_path: Path) -> None:
    store, _ = planned(tmp_path, 1)
    for token in (2, 10, 9):
        write_finished(store, 0, token, lines(1), [row(0)])
    assert finished_name(store, 0) == "shards/000000/part-000010.parquet"
