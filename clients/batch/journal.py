"""The journal of a shard: finished rows and attempts, in SQLite. Every transaction is on disk when it ends, and is the holder's of the lease."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from clients.batch.errors import BatchError, LeaseLostError

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS holder (one INTEGER PRIMARY KEY CHECK (one = 1), token INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS attempts (line INTEGER PRIMARY KEY, count INTEGER NOT NULL, error TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS finished (line INTEGER PRIMARY KEY, failed INTEGER NOT NULL, content TEXT NOT NULL);
"""
_WAIT_SECONDS: Final = 30.0
Row = dict[str, Any]


class Journal:
    """The journal of one shard, as one worker uses it. It may be used in any thread, one at a time.

    Args:
        path: of the file.
        token: of the worker's lease; a worker with a lower token can write no more.

    Raises:
        LeaseLostError: a worker with a higher token has opened the journal.
        BatchError: the file is no journal.
    """

    def __init__(self, path: Path, token: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._token = token
        try:
            self._connection = sqlite3.connect(path, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.executescript(_TABLES)
            self._take_over()
        except sqlite3.DatabaseError as error:
            raise BatchError(f"The journal {path} cannot be used: {error}.") from error

    def attempts(self) -> dict[int, int]:
        """Attempts by line, of lines that are not finished."""
        query = "SELECT line, count FROM attempts WHERE count > 0 AND line NOT IN (SELECT line FROM finished)"
        return dict(self._connection.execute(query).fetchall())

    def last_error(self, line: int) -> str:
        """What ended the last attempt of a line; empty where it was never told."""
        found = self._connection.execute("SELECT error FROM attempts WHERE line = ?", (line,)).fetchone()
        return "" if found is None else str(found[0])

    def finished(self) -> set[int]:
        """Lines that are finished."""
        return {line for (line,) in self._connection.execute("SELECT line FROM finished")}

    def counts(self) -> tuple[int, int]:
        """How many lines are finished, and how many of those have no diagnosis."""
        done, failed = self._connection.execute("SELECT COUNT(*), COALESCE(SUM(failed), 0) FROM finished").fetchone()
        return int(done), int(failed)

    def begin(self, lines: Sequence[int]) -> None:
        """Count an attempt of each line; it is on disk before the line is computed."""
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO attempts (line, count) VALUES (?, 1) ON CONFLICT (line) DO UPDATE SET count = count + 1", _each(lines)
            )

    def take_back(self, lines: Sequence[int]) -> None:
        """Take back the last attempt of each line: it was not computed."""
        with self._transaction() as connection:
            connection.executemany("UPDATE attempts SET count = count - 1 WHERE line = ?", _each(lines))

    def note(self, errors: Mapping[int, str]) -> None:
        """Note what ended the last attempt of lines."""
        with self._transaction() as connection:
            connection.executemany("UPDATE attempts SET error = ? WHERE line = ?", [(error, line) for line, error in errors.items()])

    def finish(self, rows: Iterable[Row]) -> None:
        """Keep finished rows. A line that is finished already keeps its first row."""
        with self._transaction() as connection:
            values = [(row["line"], int(row["status"] != "answered"), json.dumps(row)) for row in rows]
            connection.executemany("INSERT INTO finished (line, failed, content) VALUES (?, ?, ?) ON CONFLICT (line) DO NOTHING", values)

    def rows(self) -> Iterator[Row]:
        """Finished rows by line."""
        for (content,) in self._connection.execute("SELECT content FROM finished ORDER BY line"):
            yield json.loads(content)

    def copy(self) -> bytes:
        """The whole journal as the bytes of a file."""
        with self._transaction():
            pass
        memory = sqlite3.connect(":memory:")
        try:
            self._connection.backup(memory)
            return memory.serialize()
        finally:
            memory.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _take_over(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            found = self._connection.execute("SELECT token FROM holder").fetchone()
            if found is not None and found[0] > self._token:
                raise LeaseLostError("Another worker has taken over this shard.")
            self._connection.execute("INSERT INTO holder VALUES (1, ?) ON CONFLICT (one) DO UPDATE SET token = excluded.token", (self._token,))
            self._connection.execute("COMMIT")
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction of the holder.

        Raises:
            LeaseLostError: another worker has taken over.
        """
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            (token,) = self._connection.execute("SELECT token FROM holder").fetchone()
            if token != self._token:
                raise LeaseLostError("Another worker has taken over this shard.")
            yield self._connection
            self._connection.execute("COMMIT")
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise


def _each(lines: Sequence[int]) -> list[tuple[int]]:
    return [(line,) for line in lines]
