"""The finished file of a shard: written once, whole, under the token of the worker that wrote it."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
from pyarrow import parquet

from clients.batch.errors import BatchError
from clients.batch.manifest import Line
from clients.batch.plan import shard_folder
from clients.batch.rows import ANSWERED, results_table
from clients.batch.store import Store

_NAME: Final = re.compile(r"part-(\d{6})\.parquet")
_FAILED: Final = b"dl4all.failed"


@dataclass(frozen=True)
class ShardFile:
    """A finished shard.

    Attributes:
        name: of its file in the batch.
        images: rows.
        failed: rows without a diagnosis.
    """

    name: str
    images: int
    failed: int


def finished_name(store: Store, shard: int) -> str | None:
    """The file of a finished shard, that of the highest token; None where the shard is not finished."""
    folder = shard_folder(shard)
    tokens = [int(found[1]) for name in store.names(folder) if (found := _NAME.fullmatch(name))]
    return f"{folder}/{_name(max(tokens))}" if tokens else None


def find_finished(store: Store, shard: int) -> ShardFile | None:
    """A finished shard; None where it is not finished."""
    name = finished_name(store, shard)
    if name is None:
        return None
    schema = _open(store, name)
    return ShardFile(name, schema.metadata.num_rows, int((schema.schema_arrow.metadata or {}).get(_FAILED, b"0")))


def write_finished(store: Store, shard: int, token: int, lines: Sequence[Line], rows: Iterable[dict[str, Any]]) -> None:
    """Write the file of a shard.

    Args:
        store: of the batch.
        shard: the shard.
        token: of the worker's lease.
        lines: of the shard.
        rows: one for each line, in their order.

    Raises:
        BatchError: the rows are not those of the lines.
    """
    found = list(rows)
    if [row["line"] for row in found] != [line.number for line in lines]:
        raise BatchError(
            f"The journal of shard {shard} does not hold exactly one row for each line; it has {len(found)} rows for {len(lines)} lines."
        )
    failed = sum(row["status"] != ANSWERED for row in found)
    table = results_table(found)
    content = io.BytesIO()
    parquet.write_table(table.replace_schema_metadata({_FAILED: str(failed)}), content, compression="zstd")
    store.write(f"{shard_folder(shard)}/{_name(token)}", content.getvalue())


def read_finished(store: Store, name: str) -> pa.Table:
    """The rows of a finished shard.

    Raises:
        BatchError: the file is missing.
    """
    return _open(store, name).read()


def _name(token: int) -> str:
    return f"part-{token:06d}.parquet"


def _open(store: Store, name: str) -> parquet.ParquetFile:
    content = store.read(name)
    if content is None:
        raise BatchError(f"{name} is missing in {store.location}.")
    return parquet.ParquetFile(pa.BufferReader(content))
