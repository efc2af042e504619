"""Copies of journals on an object store."""

from __future__ import annotations

from pathlib import Path

from clients.batch.journal import Journal
from clients.batch.journal_copies import fetch_journal, keep_journal
from clients.batch.keeping import Keeper
from clients.batch.store import Store
from tests.clients.batch.making import row


async def kept(store: Store, path: Path, token: int, lines: list[int]) -> None:
    journal = Journal(path, token)
    journal.finish([row(line) for line in lines])
    keeper = Keeper(journal)
    await keep_journal(store, 0, token, keeper)
    keeper.close()
    journal.close()


async def test_another_machine_goes_on_from_the_newest_copy(tmp_path: Path) -> None:
    store = Store(f"memory://{tmp_path.name}-copies")
    await kept(store, tmp_path / "one" / "journal.sqlite", 1, [0])
    await kept(store, tmp_path / "one" / "journal.sqlite", 2, [1])
    path = tmp_path / "two" / "journal.sqlite"
    fetch_journal(store, 0, path)
    assert Journal(path, 3).finished() == {0, 1}


async def test_a_journal_that_is_as_new_stays(tmp_path: Path) -> None:
    store, path = Store(f"memory://{tmp_path.name}-stays"), tmp_path / "journal.sqlite"
    await kept(store, path, 1, [0])
    journal = Journal(path, 1)
    journal.finish([row(5)])
    journal.close()
    fetch_journal(store, 0, path)
    assert Journal(path, 1).finished() == {0, 5}
    await kept(store, tmp_path / "other", 4, [9])
    fetch_journal(store, 0, path)
    assert Journal(path, 4).finished() == {9}


async def test_a_folder_of_this_machine_needs_no_copies(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "batch"))
    await kept(store, tmp_path / "journal.sqlite", 1, [0])
    assert store.names("shards/000000") == []
    fetch_journal(store, 0, tmp_path / "other" / "journal.sqlite")
    assert not (tmp_path / "other").exists()
