"""Copies of journals on an object store, so that a shard goes on at another machine. A folder of this machine needs none."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from pathlib import Path
from typing import Final

from clients.batch.keeping import Keeper
from clients.batch.plan import shard_folder
from clients.batch.store import Store

_NAME: Final = re.compile(r"journal-(\d{6})\.sqlite")


def fetch_journal(store: Store, shard: int, path: Path) -> None:
    """Put the newest copy of a journal in place, unless the journal that is there is as new."""
    if store.folder is not None:
        return
    tokens = [int(found[1]) for name in store.names(shard_folder(shard)) if (found := _NAME.fullmatch(name))]
    if not tokens or _token(path) >= max(tokens):
        return
    content = store.read(f"{shard_folder(shard)}/journal-{max(tokens):06d}.sqlite")
    if content is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(f"{path.name}*"):
            leftover.unlink()
        path.write_bytes(content)


async def keep_journal(store: Store, shard: int, token: int, keeper: Keeper) -> None:
    """Copy a journal to an object store.

    Args:
        store: of the batch.
        shard: the shard.
        token: of the worker's lease.
        keeper: has the journal.

    Raises:
        LeaseLostError: another worker has taken over.
    """
    if store.folder is not None:
        return
    content = await keeper.copy()
    await asyncio.to_thread(store.write, f"{shard_folder(shard)}/journal-{token:06d}.sqlite", content)


def _token(path: Path) -> int:
    """The token of the last worker that had a journal of this machine; 0 where there is none."""
    if not path.is_file():
        return 0
    connection = sqlite3.connect(path)
    try:
        found = connection.execute("SELECT token FROM holder").fetchone()
        return 0 if found is None else int(found[0])
    except sqlite3.DatabaseError:
        return 0
    finally:
        connection.close()
