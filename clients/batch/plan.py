"""The plan of a batch: its manifest, its options, and its shards."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import pyarrow as pa
from pyarrow import parquet

from clients.batch.errors import BatchError
from clients.batch.manifest import Line, as_lines, as_table, digest
from clients.batch.store import Store
from dl4all_client import Kind

SHARD_SIZE: Final = 2000
"""Images of a shard, unless told otherwise."""
_PLAN: Final = "plan.json"
_MANIFEST: Final = "manifest.parquet"
_FORM: Final = 1


@dataclass(frozen=True)
class Options:
    """What every image of a batch is asked with.

    Attributes:
        release: release id of the lines that name none.
        kind: what the images show: auto, cell or field.
        neighbours: known cells that are named for each cell, 1..20; 0 for the service's number.
    """

    release: str
    kind: Kind = "auto"
    neighbours: int = 0


@dataclass(frozen=True)
class Plan:
    """A planned batch.

    Attributes:
        manifest_sha256: see ``manifest.digest``.
        images: lines of the manifest.
        shard_size: images of a shard; the last one has what is left.
        options: of every image.
        releases: release ids by the names that lines use, as the gateway knew them when the batch was planned.
        address: of the gateway; None where the services run in the worker.
    """

    manifest_sha256: str
    images: int
    shard_size: int
    options: Options
    releases: dict[str, str]
    address: str | None = None

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.images // self.shard_size)

    def size_of(self, shard: int) -> int:
        """Images of a shard."""
        return min(self.shard_size, self.images - shard * self.shard_size)

    def release_of(self, line: Line) -> str:
        """The release id that judges a line."""
        return self.releases[line.release] if line.release else self.options.release


def shard_folder(shard: int) -> str:
    """The folder of a shard in a batch."""
    return f"shards/{shard:06d}"


def write_plan(store: Store, plan: Plan, lines: Sequence[Line]) -> None:
    """Write a plan. The plan itself comes last: a batch that has one is whole."""
    content = io.BytesIO()
    parquet.write_table(as_table(lines), content, row_group_size=plan.shard_size, compression="zstd")
    store.write(_MANIFEST, content.getvalue())
    rewrite_plan(store, plan)


def rewrite_plan(store: Store, plan: Plan) -> None:
    """Write a plan anew whose manifest stays as it is."""
    store.write(_PLAN, json.dumps({"form": _FORM, **asdict(plan)}, indent=2).encode())


def find_plan(store: Store) -> Plan | None:
    """The plan of a batch; None where there is none.

    Raises:
        BatchError: it cannot be read.
    """
    content = store.read(_PLAN)
    if content is None:
        return None
    try:
        form: dict[str, Any] = json.loads(content)
        if form.pop("form") != _FORM:
            raise BatchError(f"The batch in {store.location} was planned by another version; plan it anew.")
        return Plan(**{**form, "options": Options(**form["options"])})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BatchError(f"The plan in {store.location} cannot be read: {error}.") from error


def read_plan(store: Store) -> Plan:
    """The plan of a batch.

    Raises:
        BatchError: there is none, or it cannot be read.
    """
    plan = find_plan(store)
    if plan is None:
        raise BatchError(f"There is no batch in {store.location}; plan one with `dl4all batch run SOURCE --out {store.location}`.")
    return plan


def lines_of(store: Store, plan: Plan, shard: int) -> list[Line]:
    """The lines of a shard.

    Raises:
        BatchError: there is no such shard, or the manifest is missing.
    """
    if not 0 <= shard < plan.shards:
        raise BatchError(f"The batch in {store.location} has {plan.shards} shards, from 0; there is no shard {shard}.")
    content = store.read(_MANIFEST)
    if content is None:
        raise BatchError(f"The manifest of the batch in {store.location} is missing; plan it anew.")
    return as_lines(parquet.ParquetFile(pa.BufferReader(content)).read_row_group(shard))


def make_plan(lines: Sequence[Line], options: Options, releases: dict[str, str], address: str | None, shard_size: int = SHARD_SIZE) -> Plan:
    """A plan of these lines."""
    return Plan(digest(lines), len(lines), shard_size, options, releases, address)


def differences(old: Plan, new: Plan) -> list[str]:
    """What differs between two plans so that their results must not be mixed, in words; address and shard size do not count."""
    found = []
    if old.manifest_sha256 != new.manifest_sha256:
        found.append(f"the manifest is another one ({old.images} images then, {new.images} now)")
    for name in ("release", "kind", "neighbours"):
        was, now = getattr(old.options, name), getattr(new.options, name)
        if was != now:
            found.append(f"{name} was {was!r} and is {now!r}")
    if old.releases != new.releases and old.manifest_sha256 == new.manifest_sha256:
        found.append("the releases that its lines name are other ones now")
    return found
