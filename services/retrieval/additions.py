"""Confirmed cells that wait for the next version of a library: a durable store in which every cell has an author.

One SQLite file with a write-ahead log, synchronised at every commit: an answered call survives a kill and a power cut. Only a withdrawal changes
rows, and no row is ever deleted.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from services.common.errors import AlreadyExistsError, ConfigurationError, DependencyUnavailableError, DomainError, NotFoundError, OverloadedError

Float = NDArray[np.float32]

_VERSION: Final = 2
_BUSY_SECONDS: Final = 5.0
_SCHEMA: Final = """
CREATE TABLE calls (
  key TEXT PRIMARY KEY, digest TEXT NOT NULL, embedder TEXT NOT NULL, source TEXT NOT NULL, confirmed_by TEXT NOT NULL, confirmed_at REAL NOT NULL,
  verified_as TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE TABLE additions (
  id INTEGER PRIMARY KEY AUTOINCREMENT, call TEXT NOT NULL REFERENCES calls(key), is_blast INTEGER NOT NULL, cell_class TEXT NOT NULL,
  patient TEXT NOT NULL, embedding BLOB NOT NULL, patches BLOB NOT NULL, rows INTEGER NOT NULL, columns INTEGER NOT NULL,
  image_sha256 TEXT NOT NULL, center_x REAL NOT NULL, center_y REAL NOT NULL, radius REAL NOT NULL,
  withdrawn_by TEXT, withdrawn_at REAL, withdrawn_why TEXT
) STRICT;
CREATE INDEX additions_by_call ON additions(call);
"""
_FROM_VERSION_1: Final = "ALTER TABLE calls ADD COLUMN verified_as TEXT NOT NULL DEFAULT ''"


@dataclass(frozen=True)
class NewReference:
    """A confirmed cell.

    Attributes:
        is_blast: whether it is a leukaemic blast.
        cell_class: as the source names it.
        patient: pseudonym of the source.
        embedding: float32 (D,), not normalised.
        place_embeddings: float32 (h, w, D), embeddings by place, kept in half precision.
        image_sha256: of the cell's image file, hex digits.
        center_x, center_y, radius: in px of that file.
    """

    is_blast: bool
    cell_class: str
    patient: str
    embedding: Float
    place_embeddings: Float
    image_sha256: str
    center_x: float
    center_y: float
    radius: float


@dataclass(frozen=True)
class Addition:
    """A kept cell.

    Attributes:
        id: its number.
        reference: the cell.
        embedder: model and version that made the embedding, ``name/version``.
        source: where it comes from.
        confirmed_by: who confirmed it, as the caller said.
        confirmed_at: when, seconds since 1970.
        verified_as: name in the certificate of the caller; empty where nobody has verified who called.
        withdrawn_by: who withdrew it; None while it is in force.
        withdrawn_why: why; None while it is in force.
    """

    id: int
    reference: NewReference
    embedder: str
    source: str
    confirmed_by: str
    confirmed_at: float
    verified_as: str
    withdrawn_by: str | None
    withdrawn_why: str | None


class AdditionStore:
    """The store, in one file. Every method opens the file anew, so that threads and processes may share it.

    Args:
        path: of the file; made if it is not there.
        most: cells that it may hold.
        min_free_bytes: bytes that stay free on the disk.

    Raises:
        ConfigurationError: ADDITIONS_BROKEN: the file cannot be used.
    """

    def __init__(self, path: Path, most: int = 10**9, min_free_bytes: int = 0) -> None:
        self._path = path
        self._most = most
        self._min_free_bytes = min_free_bytes
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._connected() as connection, _transaction(connection):
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                if version == 0:
                    for statement in _SCHEMA.split(";\n"):
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version = {_VERSION}")
                elif version == 1:
                    connection.execute(_FROM_VERSION_1)
                    connection.execute(f"PRAGMA user_version = {_VERSION}")
                elif version != _VERSION:
                    raise sqlite3.DatabaseError(f"version {version}")
        except (OSError, sqlite3.Error, DependencyUnavailableError, OverloadedError) as error:
            raise ConfigurationError("ADDITIONS_BROKEN", f"{path} cannot be used for additions: {error}.") from error

    def add(
        self, key: str, embedder: str, source: str, confirmed_by: str, references: Sequence[NewReference], verified_as: str = ""
    ) -> tuple[list[int], bool]:
        """Keep cells; they are on disk when this returns.

        Args:
            key: the caller's key of this call.
            embedder: model and version that made the embeddings.
            source: where the cells come from.
            confirmed_by: who confirmed them.
            references: the cells.
            verified_as: name in the certificate of the caller.

        Returns:
            Their numbers in order, and whether an earlier call with this key kept them.

        Raises:
            AlreadyExistsError: IDEMPOTENCY_KEY_REUSED: the key came with other content.
            OverloadedError: ADDITIONS_FULL or DISK_FULL: there is no room; none is kept.
        """
        digest = _digest(embedder, source, confirmed_by, references)
        with self._connected() as connection, _transaction(connection):
            known = connection.execute("SELECT digest FROM calls WHERE key = ?", (key,)).fetchone()
            if known is None:
                self._check_room(connection, len(references))
                call = (key, digest, embedder, source, confirmed_by, time.time(), verified_as)
                connection.execute("INSERT INTO calls VALUES (?, ?, ?, ?, ?, ?, ?)", call)
                connection.executemany(
                    "INSERT INTO additions (call, is_blast, cell_class, patient, embedding, patches, rows, columns, image_sha256, center_x, center_y, radius)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    [_row(key, reference) for reference in references],
                )
            elif known[0] != digest:
                raise AlreadyExistsError(
                    "IDEMPOTENCY_KEY_REUSED", "This idempotency key was used with other content; give a new one.", field="idempotency_key"
                )
            ids = [i for (i,) in connection.execute("SELECT id FROM additions WHERE call = ? ORDER BY id", (key,))]
        return ids, known is not None

    def withdraw(self, ids: Sequence[int], withdrawn_by: str, why: str) -> int:
        """Withdraw additions; those that are withdrawn already stay as they are.

        Returns:
            Number of additions that were in force until now.

        Raises:
            NotFoundError: ADDITION_UNKNOWN: there is no such addition; none is withdrawn.
        """
        with self._connected() as connection, _transaction(connection):
            for i in ids:
                if connection.execute("SELECT 1 FROM additions WHERE id = ?", (i,)).fetchone() is None:
                    raise NotFoundError("ADDITION_UNKNOWN", f"There is no addition {i}.", field="addition_ids")
            changed = connection.executemany(
                "UPDATE additions SET withdrawn_by = ?, withdrawn_at = ?, withdrawn_why = ? WHERE id = ? AND withdrawn_by IS NULL",
                [(withdrawn_by, time.time(), why, i) for i in ids],
            )
            return changed.rowcount

    def ids(self, embedder: str) -> list[int]:
        """Numbers of the additions in force whose embeddings this embedder made."""
        query = "SELECT id FROM additions JOIN calls ON call = key WHERE embedder = ? AND withdrawn_by IS NULL ORDER BY id"
        with self._connected() as connection:
            return [i for (i,) in connection.execute(query, (embedder,))]

    def read(self, *, withdrawn: bool = False) -> list[Addition]:
        """All additions in order of their numbers.

        Args:
            withdrawn: whether to list the withdrawn ones as well.
        """
        columns = (
            "id, is_blast, cell_class, patient, embedding, patches, rows, columns, image_sha256, center_x, center_y, radius,"
            " embedder, source, confirmed_by, confirmed_at, verified_as, withdrawn_by, withdrawn_why"
        )
        where = "" if withdrawn else " WHERE withdrawn_by IS NULL"
        with self._connected() as connection:
            return [_addition(row) for row in connection.execute(f"SELECT {columns} FROM additions JOIN calls ON call = key{where} ORDER BY id")]

    def _check_room(self, connection: sqlite3.Connection, more: int) -> None:
        (count,) = connection.execute("SELECT count(*) FROM additions").fetchone()
        if count + more > self._most:
            raise OverloadedError(
                "ADDITIONS_FULL", f"The file takes {self._most} confirmed cells and holds {count}; a new version of the library uses them."
            )
        if shutil.disk_usage(self._path.parent).free < self._min_free_bytes:
            raise _disk_full()

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA foreign_keys = ON")
                yield connection
        except sqlite3.OperationalError as error:
            told = _told(error)
            if told is None:
                raise
            raise told from error


def _told(error: sqlite3.OperationalError) -> DomainError | None:
    """The caller's error for a busy file or a full disk; None for anything else."""
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return DependencyUnavailableError("ADDITIONS_BUSY", "Another process is writing to the file of confirmed cells; try again.")
        case sqlite3.SQLITE_FULL:
            return _disk_full()
        case _:
            return None


def _disk_full() -> OverloadedError:
    return OverloadedError("DISK_FULL", "There is no room for confirmed cells; nothing of the call was kept.")


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:  # a full disk has ended it already
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _row(key: str, reference: NewReference) -> tuple[str, int, str, str, bytes, bytes, int, int, str, float, float, float]:
    return (
        key,
        int(reference.is_blast),
        reference.cell_class,
        reference.patient,
        reference.embedding.astype("<f4").tobytes(),
        reference.place_embeddings.astype("<f2").tobytes(),
        reference.place_embeddings.shape[0],
        reference.place_embeddings.shape[1],
        reference.image_sha256,
        reference.center_x,
        reference.center_y,
        reference.radius,
    )


def _addition(row: tuple[Any, ...]) -> Addition:
    number, is_blast, cell_class, patient, embedding, places, rows, columns, image_sha256, x, y, radius, *call = row
    vector = np.frombuffer(embedding, "<f4").astype(np.float32)
    grid = np.frombuffer(places, "<f2").astype(np.float32).reshape(rows, columns, len(vector))
    return Addition(number, NewReference(bool(is_blast), cell_class, patient, vector, grid, image_sha256, x, y, radius), *call)


def _digest(embedder: str, source: str, confirmed_by: str, references: Sequence[NewReference]) -> str:
    """What tells two calls apart: which cells of which images, their labels, and who confirmed them.

    Embeddings are left out, and positions are rounded to px: another replica or engine gives the same cell slightly other numbers, and the
    repetition of a call must be recognised all the same.
    """
    cells = [(r.is_blast, r.cell_class, r.patient, r.image_sha256, round(r.center_x), round(r.center_y)) for r in references]
    return hashlib.sha256(json.dumps([embedder, source, confirmed_by, cells]).encode()).hexdigest()
