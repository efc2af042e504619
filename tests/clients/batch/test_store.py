"""Stores: a folder of this machine, and an object store."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clients.batch.store import Store


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(str(tmp_path / "batch") if request.param == "folder" else f"memory://{uuid.uuid4().hex}")


def test_files_are_written_read_listed_and_deleted(store: Store) -> None:
    assert store.read("plan.json") is None
    assert store.names("shards/0") == []
    store.write("plan.json", b"1")
    store.write("plan.json", b"2")
    store.write("shards/0/b", b"")
    store.write("shards/0/a", b"")
    assert store.read("plan.json") == b"2"
    assert store.names("shards/0") == ["a", "b"]
    store.delete()
    assert store.read("plan.json") is None


def test_of_many_creators_one_succeeds(store: Store) -> None:
    with ThreadPoolExecutor(8) as threads:
        created: Callable[[int], bool] = lambda number: store.create("lease", str(number).encode())  # noqa: E731
        assert sum(threads.map(created, range(40))) == 1
    content = store.read("lease")
    assert not store.create("lease", b"later")
    assert store.read("lease") == content


def test_a_file_that_is_put_has_moved(store: Store, tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.write_bytes(b"results")
    store.write("plan.json", b"")
    store.put(made, "results.parquet")
    assert store.read("results.parquet") == b"results"
    assert not made.exists()


def test_nothing_half_written_is_listed(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write("shards/a", b"")
    (tmp_path / "shards" / ".a.123.part").write_bytes(b"half")
    assert store.names("shards") == ["a"]
