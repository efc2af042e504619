"""Journals: durable, counted, fenced."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from clients.batch.errors import BatchError, LeaseLostError
from clients.batch.journal import Journal
from tests.clients.batch.making import failed_row, row


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shard" / "journal.sqlite"


def test_rows_and_attempts_come_back(path: Path) -> None:
    journal = Journal(path, 1)
    journal.begin([3, 4, 5])
    journal.begin([4])
    journal.take_back([5])
    journal.note({4: "UNAVAILABLE"})
    journal.finish([row(3), failed_row(0)])
    journal.close()
    again = Journal(path, 2)
    assert again.attempts() == {4: 2}
    assert again.last_error(4) == "UNAVAILABLE"
    assert again.last_error(9) == ""
    assert again.finished() == {0, 3}
    assert again.counts() == (2, 1)
    assert [found["line"] for found in again.rows()] == [0, 3]
    assert next(iter(again.rows()))["error_reason"] == "IMAGE_TRUNCATED"


def test_a_line_keeps_its_first_row(path: Path) -> None:
    journal = Journal(path, 1)
    journal.finish([row(0, attempts=1)])
    journal.finish([row(0, attempts=2)])
    assert [found["attempts"] for found in journal.rows()] == [1]
    assert journal.counts() == (1, 0)


def test_a_worker_that_was_followed_writes_no_more(path: Path) -> None:
    old = Journal(path, 1)
    old.begin([0])
    new = Journal(path, 2)
    for write in (lambda: old.begin([1]), lambda: old.finish([row(0)]), lambda: old.take_back([0]), lambda: old.note({0: "x"}), old.copy):
        with pytest.raises(LeaseLostError):
            write()
    assert new.attempts() == {0: 1}
    assert new.finished() == set()
    with pytest.raises(LeaseLostError):
        Journal(path, 1)


def test_every_transaction_is_on_disk(path: Path) -> None:
    journal = Journal(path, 1)
    assert journal._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert journal._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_what_was_begun_survives_a_kill(path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from clients.batch.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1]), 1); journal.begin([7]); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert Journal(path, 2).attempts() == {7: 1}


def test_a_copy_is_a_whole_journal(path: Path, tmp_path: Path) -> None:
    journal = Journal(path, 3)
    journal.begin([1, 2])
    journal.finish([row(1)])
    (tmp_path / "copy").write_bytes(journal.copy())
    copied = Journal(tmp_path / "copy", 3)
    assert copied.finished() == {1}
    assert copied.attempts() == {2: 1}


def test_what_is_no_journal_is_said(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("this is no database, only a text that is long enough" * 10)
    with pytest.raises(BatchError, match="cannot be used"):
        Journal(tmp_path / "text", 1)


def test_a_failed_transaction_leaves_nothing(path: Path) -> None:
    journal = Journal(path, 1)
    with pytest.raises((sqlite3.Error, KeyError)):
        journal.finish([row(0), {"line": 1}])
    assert journal.finished() == set()
    assert os.path.exists(path)
