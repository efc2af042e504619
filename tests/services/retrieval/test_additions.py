"""The store of confirmed cells: no answered cell is lost, none is kept twice, and every cell has an author."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.common.errors import AlreadyExistsError, ConfigurationError, DependencyUnavailableError, NotFoundError, OverloadedError
from services.retrieval import additions
from services.retrieval.additions import AdditionStore, NewReference
from tests.paths import ROOT


def reference(seed: int = 0, *, is_blast: bool = True) -> NewReference:
    random = np.random.default_rng(seed)
    places = random.normal(size=(4, 4, 8)).astype(np.float16).astype(np.float32)
    return NewReference(is_blast, "blast", f"p{seed}", random.normal(size=8).astype(np.float32), places, f"{seed:064x}", 10.5, 20.25, 30.0)


@pytest.fixture
def store(tmp_path: Path) -> AdditionStore:
    return AdditionStore(tmp_path / "new" / "additions.sqlite")


def test_what_is_added_is_read_back_with_its_author(store: AdditionStore) -> None:
    assert store.add("k1", "net/1", "here", "Dr A", [reference(1), reference(2, is_blast=False)]) == ([1, 2], False)
    first, second = store.read()
    assert (first.embedder, first.source, first.confirmed_by, first.withdrawn_by) == ("net/1", "here", "Dr A", None)
    for addition, given in ((first, reference(1)), (second, reference(2, is_blast=False))):
        assert np.array_equal(addition.reference.embedding, given.embedding)
        assert np.array_equal(addition.reference.place_embeddings, given.place_embeddings)
        kept = replace(addition.reference, embedding=given.embedding, place_embeddings=given.place_embeddings)
        assert vars(kept) == vars(given)


def test_who_called_is_kept_where_a_certificate_says_so(store: AdditionStore) -> None:
    store.add("k1", "net/1", "here", "Dr A", [reference(1)], "spiffe://lab/lis")
    store.add("k2", "net/1", "here", "Dr A", [reference(2)])
    assert [a.verified_as for a in store.read()] == ["spiffe://lab/lis", ""]


def test_a_file_of_the_first_version_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "additions.sqlite"
    AdditionStore(path).add("k1", "net/1", "here", "Dr A", [reference(1)])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE calls DROP COLUMN verified_as")
        connection.execute("PRAGMA user_version = 1")
        connection.commit()
    store = AdditionStore(path)
    store.add("k2", "net/1", "here", "Dr B", [reference(2)], "lis")
    assert [(a.confirmed_by, a.verified_as) for a in store.read()] == [("Dr A", ""), ("Dr B", "lis")]


def test_a_full_file_takes_no_more_and_still_knows_its_calls(tmp_path: Path) -> None:
    store = AdditionStore(tmp_path / "additions.sqlite", most=2)
    store.add("k1", "net/1", "here", "Dr A", [reference(1)])
    with pytest.raises(OverloadedError) as caught:
        store.add("k2", "net/1", "here", "Dr A", [reference(2), reference(3)])
    assert caught.value.reason == "ADDITIONS_FULL"
    assert store.add("k1", "net/1", "here", "Dr A", [reference(1)]) == ([1], True)
    assert store.add("k3", "net/1", "here", "Dr A", [reference(4)]) == ([2], False)


def test_the_disk_keeps_some_bytes_free(tmp_path: Path) -> None:
    store = AdditionStore(tmp_path / "additions.sqlite", min_free_bytes=10**18)
    with pytest.raises(OverloadedError) as caught:
        store.add("k1", "net/1", "here", "Dr A", [reference(1)])
    assert caught.value.reason == "DISK_FULL"
    assert store.read() == []


def test_the_same_call_again_is_kept_once_and_other_content_is_refused(store: AdditionStore) -> None:
    store.add("k1", "net/1", "here", "Dr A", [reference(1)])
    assert store.add("k1", "net/1", "here", "Dr A", [reference(1)]) == ([1], True)
    for changed in (
        ("net/2", "here", "Dr A", [reference(1)]),
        ("net/1", "there", "Dr A", [reference(1)]),
        ("net/1", "here", "Dr B", [reference(1)]),
        ("net/1", "here", "Dr A", [reference(2)]),
        ("net/1", "here", "Dr A", [reference(1, is_blast=False)]),
        ("net/1", "here", "Dr A", [reference(1), reference(2)]),
    ):
        with pytest.raises(AlreadyExistsError):
            store.add("k1", *changed)
    assert len(store.read()) == 1


def test_a_repeated_call_is_recognised_though_another_engine_gave_slightly_other_numbers(store: AdditionStore) -> None:
    first = replace(reference(1), center_x=10.2)
    again = replace(first, embedding=first.embedding * 1.001, place_embeddings=first.place_embeddings * 0.999, center_x=first.center_x + 1e-4)
    assert store.add("k1", "net/1", "here", "Dr A", [first]) == ([1], False)
    assert store.add("k1", "net/1", "here", "Dr A", [again]) == ([1], True)
    with pytest.raises(AlreadyExistsError):
        store.add("k1", "net/1", "here", "Dr A", [replace(first, center_x=first.center_x + 40.0)])


def test_withdrawn_additions_stay_on_record(store: AdditionStore) -> None:
    store.add("k1", "net/1", "here", "Dr A", [reference(1), reference(2), reference(3)])
    assert store.withdraw([1, 3], "Dr B", "mislabelled") == 2
    assert store.withdraw([1], "Dr C", "again") == 0
    assert [a.id for a in store.read()] == [2]
    first = store.read(withdrawn=True)[0]
    assert (first.withdrawn_by, first.withdrawn_why) == ("Dr B", "mislabelled")
    assert (len(store.ids("net/1")), len(store.ids("net/2"))) == (1, 0)


def test_an_unknown_addition_withdraws_none(store: AdditionStore) -> None:
    store.add("k1", "net/1", "here", "Dr A", [reference(1)])
    with pytest.raises(NotFoundError):
        store.withdraw([1, 99], "Dr B", "why")
    assert len(store.read()) == 1


def test_many_threads_add_and_none_is_lost(store: AdditionStore) -> None:
    def add(number: int) -> None:
        for i in range(5):
            store.add(f"{number}-{i}", "net/1", "here", "Dr A", [reference(number)])

    threads = [threading.Thread(target=add, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.read()) == 30


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"no database at all, but long enough to be looked at" * 40)
    with pytest.raises(ConfigurationError):
        AdditionStore(tmp_path / "other")


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from services.retrieval.additions import AdditionStore
from tests.services.retrieval.test_additions import reference
store = AdditionStore(Path(sys.argv[1]))
for number in range(10**6):
    store.add(f"k{number}", "net/1", "here", "Dr A", [reference(number)] * 3)
    print(number, flush=True)
"""


@pytest.mark.parametrize("kept", [1, 7, 20])
def test_a_kill_loses_nothing_that_was_answered_and_leaves_no_half_call(tmp_path: Path, kept: int) -> None:
    path, root = tmp_path / "additions.sqlite", str(ROOT)
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path), root], stdout=subprocess.PIPE, text=True, cwd=root)
    assert writer.stdout is not None
    answered = [int(next(writer.stdout)) for _ in range(kept)]
    os.kill(writer.pid, signal.SIGKILL)
    answered += [int(line) for line in writer.stdout.read().split()]
    writer.wait()
    additions = AdditionStore(path).read()
    assert len(additions) % 3 == 0
    assert len(additions) // 3 >= len(answered)
    assert {a.reference.patient for a in additions} >= {f"p{n}" for n in answered}


def test_a_store_that_somebody_else_writes_to_is_busy_and_keeps_nothing(store: AdditionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(additions, "_BUSY_SECONDS", 0.05)
    with closing(sqlite3.connect(store._path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DependencyUnavailableError) as caught:
            store.add("key", "net/1", "lab", "Dr A", [reference()])
        other.execute("ROLLBACK")
    assert (caught.value.code, caught.value.reason) == ("UNAVAILABLE", "ADDITIONS_BUSY")
    assert store.read() == []


def test_a_full_disk_is_told_and_keeps_nothing(store: AdditionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(path: Path, **options: Any) -> sqlite3.Connection:
        connection = real(path, **options)
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", connect)
    with pytest.raises(OverloadedError) as caught:
        store.add("key", "net/1", "lab", "Dr A", [reference(i) for i in range(200)])
    assert caught.value.reason == "DISK_FULL"
    monkeypatch.undo()
    assert store.read() == []
