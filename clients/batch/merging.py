"""Merge the finished shards of a batch into one file: a row for every line of the manifest, in its order."""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pyarrow as pa
from pyarrow import parquet

from clients.batch.errors import BatchError
from clients.batch.plan import Plan, lines_of
from clients.batch.rows import SCHEMA
from clients.batch.shard_file import finished_name, read_finished
from clients.batch.store import Store

RESULTS: Final = "results.parquet"
_Seen = defaultdict[tuple[str, str], set[str]]
_PROVENANCE: Final = ("release", "engine", "service_version", "served_files")


def finished_tables(store: Store, plan: Plan) -> Iterator[pa.Table]:
    """The rows of every shard, in order, from its file of the highest token.

    Raises:
        BatchError: a shard is not finished, or does not hold exactly one row for each of its lines.
    """
    names = [finished_name(store, shard) for shard in range(plan.shards)]
    missing = [shard for shard, name in enumerate(names) if name is None]
    if missing:
        raise BatchError(f"{len(missing)} of {plan.shards} shards are not finished; go on with `dl4all batch resume --out {store.location}`.")
    for shard, name in enumerate(names):
        assert name is not None
        table = read_finished(store, name)
        if table["line"].to_pylist() != [line.number for line in lines_of(store, plan, shard)]:
            raise BatchError(f"{name} does not hold exactly one row for each line of its shard.")
        yield table


def merge(store: Store, plan: Plan, *, mixed: bool = False) -> str:
    """Write ``results.parquet`` of a batch.

    Args:
        store: of the batch.
        plan: of the batch.
        mixed: whether rows of one release may come from different model files, engines or versions of the services.

    Returns:
        Where the file is.

    Raises:
        BatchError: see ``finished_tables``; or rows of one release have different provenance.
    """
    seen: _Seen = defaultdict(set)
    with tempfile.TemporaryDirectory(prefix=".merge-", dir=store.folder) as folder:
        path = Path(folder) / RESULTS
        with parquet.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
            for table in finished_tables(store, plan):
                writer.write_table(table.cast(SCHEMA))
                _note_provenance(seen, table)
        if not mixed:
            _refuse_mixtures(seen)
        with path.open("rb") as file:
            os.fsync(file.fileno())
        store.put(path, RESULTS)
    return f"{store.location}/{RESULTS}"


def read_results(store: Store) -> pa.Table:
    """The merged rows.

    Raises:
        BatchError: they are not merged yet.
    """
    content = store.read(RESULTS)
    if content is None:
        raise BatchError(f"There is no {RESULTS} in {store.location}; write it with `dl4all batch merge {store.location}`.")
    return parquet.read_table(pa.BufferReader(content))


def _note_provenance(seen: _Seen, table: pa.Table) -> None:
    """Note with what the rows of each release were made. An image without cells names fewer files than others."""
    for row in table.select(_PROVENANCE).to_pylist():
        release = row["release"]
        if release is None:
            continue
        seen[release, "version of the services"].add(row["service_version"])
        if row["engine"]:
            seen[release, "engine"].add(row["engine"])
        for file in row["served_files"]:
            seen[release, f"file of {file['name']}"].add(f"{file['version']} {file['sha256'][:12]}")


def _refuse_mixtures(seen: _Seen) -> None:
    for (release, what), found in seen.items():
        if len(found) > 1:
            raise BatchError(f"The rows of release {release} differ in the {what}: {', '.join(sorted(found))}. Allow it with --mix.")
