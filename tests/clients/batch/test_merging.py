"""Merging shards."""

from __future__ import annotations

from pathlib import Path

import pytest

from clients.batch.errors import BatchError
from clients.batch.merging import merge, read_results
from clients.batch.rows import answered_row
from clients.batch.shard_file import write_finished
from tests.clients.batch.making import diagnosis, failed_row, lines, planned, row


def test_every_line_has_one_row_in_order(tmp_path: Path) -> None:
    store, plan = planned(tmp_path, 6, shard_size=4)
    write_finished(store, 1, 1, lines(6)[4:], [row(4), failed_row(5)])
    with pytest.raises(BatchError, match="1 of 2 shards are not finished"):
        merge(store, plan)
    write_finished(store, 0, 1, lines(6)[:4], [row(n) for n in range(4)])
    assert merge(store, plan) == f"{tmp_path}/results.parquet"
    merged = read_results(store)
    assert merged["line"].to_pylist() == list(range(6))
    assert merged["status"].to_pylist() == ["answered"] * 5 + ["refused"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.parquet", "plan.json", "results.parquet", "shards"]


def test_the_rows_of_the_highest_token_are_taken(tmp_path: Path) -> None:
    store, plan = planned(tmp_path, 1)
    write_finished(store, 0, 2, lines(1), [row(0, attempts=2)])
    write_finished(store, 0, 1, lines(1), [row(0, attempts=1)])
    merge(store, plan)
    assert read_results(store)["attempts"].to_pylist() == [2]


def test_a_shard_with_other_lines_is_refused(tmp_path: Path) -> None:
    store, plan = planned(tmp_path, 4, shard_size=2)
    write_finished(store, 0, 1, lines(2), [row(0), row(1)])
    write_finished(store, 1, 1, lines(2), [row(0), row(1)])
    with pytest.raises(BatchError, match="exactly one row"):
        merge(store, plan)


def test_rows_made_in_different_ways_are_not_mixed_unless_told(tmp_path: Path) -> None:
    store, plan = planned(tmp_path, 3)
    other = [answered_row(lines(3)[number], 1, diagnosis(sha=str(number % 2) * 64), 0.1) for number in range(3)]
    write_finished(store, 0, 1, lines(3), other)
    with pytest.raises(BatchError, match="file of network"):
        merge(store, plan)
    merge(store, plan, mixed=True)
    assert len(read_results(store)) == 3


def test_an_image_without_cells_is_no_other_way(tmp_path: Path) -> None:
    store, plan = planned(tmp_path, 2)
    empty = diagnosis(cells=0)
    empty.provenance.engine = ""
    del empty.provenance.served_files[:]
    write_finished(store, 0, 1, lines(2), [row(0), answered_row(lines(2)[1], 1, empty, 0.1)])
    merge(store, plan)


def test_what_is_not_merged_is_said(tmp_path: Path) -> None:
    store, _ = planned(tmp_path, 2)
    with pytest.raises(BatchError, match="batch merge"):
        read_results(store)
