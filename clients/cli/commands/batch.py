"""``dl4all batch``: score many images, in shards that survive whatever ends."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from clients.cli.options import AsJson, Kind, KindOption, ReleaseOption
from clients.cli.running import console, in_a_folder, print_json, say
from dl4all_client import ServiceError

if TYPE_CHECKING:
    from clients.batch.engines.base import Engine
    from clients.batch.plan import Plan
    from clients.batch.status import Status
    from clients.batch.store import Store
    from clients.batch.worker import Work

batch_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Score many images: folders, globs or manifests. What is finished survives whatever ends; `resume` goes on.",
)
_RATE_SECONDS: Final = 30.0


class EngineName(StrEnum):
    """What runs the shards."""

    LOCAL = "local"
    RAY = "ray"
    KUBERNETES = "kubernetes"


Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A folder, a glob (quote it), or a manifest: CSV or Parquet with the columns path or uri, and if you like specimen, release and "
        "microns_per_pixel. URIs such as s3://bucket/folder work where the package of fsspec for them is installed.",
    ),
]
Location = Annotated[str, typer.Argument(metavar="DIR", help="The folder of the batch, as given to `run --out`; a path or a URI.")]
Out = Annotated[str, typer.Option(help="Folder for shards and results, or a URI of an object store.")]
AddressOption = Annotated[
    str | None, typer.Option(help="HOST:PORT of a running gateway; without it the services run in the workers.", show_default=False)
]
Neighbours = Annotated[int, typer.Option(help="Known cells that are named for each cell, 1..20; 0: the service's number.", min=0, max=20)]
ShardSize = Annotated[
    int, typer.Option(help="Images of a shard; 0: 2000, or fewer in a small batch, so that every worker has some.", min=0, max=100_000)
]
Workers = Annotated[int, typer.Option(help="Worker processes; 0: one for every core where the services run in them, else one.", min=0, max=256)]
InFlight = Annotated[int, typer.Option(help="Images under way at most, per worker. The number adapts to what the gateway accepts.", min=1, max=1024)]
Patience = Annotated[float, typer.Option(help="Seconds without a finished image before a worker gives up.", min=1.0)]
Mix = Annotated[bool, typer.Option("--mix", help="Allow results of another release or of other options beside the old ones.")]
EngineOption = Annotated[EngineName, typer.Option(help="What runs the shards: processes of this machine, a Ray cluster, or an Indexed Job.")]
Cluster = Annotated[
    str | None,
    typer.Option(help="HOST:PORT of a Ray cluster; without it one is started here for this batch.", envvar="RAY_ADDRESS", show_default=False),
]
Folder = Annotated[Path | None, typer.Option(help="Folder for journals, where DIR is a URI; keep it for the next start.", show_default=False)]


@batch_app.command("run")
def run_batch(
    source: Source,
    out: Out,
    release: ReleaseOption = "",
    kind: KindOption = Kind.AUTO,
    neighbours: Neighbours = 0,
    address: AddressOption = None,
    engine: EngineOption = EngineName.LOCAL,
    cluster: Cluster = None,
    workers: Workers = 0,
    shard_size: ShardSize = 0,
    in_flight: InFlight = 64,
    patience: Patience = 600.0,
    folder: Folder = None,
    mix: Mix = False,
    discard: Annotated[bool, typer.Option("--discard", help="Delete the old batch in DIR and begin anew.")] = False,
) -> None:
    """Score all images of SOURCE: plan, run, merge. Run the same command again, or `resume`, to go on after whatever ended it.

    Writes `DIR/results.parquet`, one row for every line of the manifest: facts, finding, counts, reasons, cells, provenance, or the error.
    Ctrl-C keeps what is finished. Exit status 0: every image has a row, though it may be an error.
    """
    with _explained():
        plan = _planned(source, out, release, kind, neighbours, address, shard_size, workers, mix=mix, discard=discard)
        _run(out, plan, _work(out, address, folder, in_flight, patience), engine, cluster, workers, mix=mix)


@batch_app.command("plan")
def plan_batch(
    source: Source,
    out: Out,
    release: ReleaseOption = "",
    kind: KindOption = Kind.AUTO,
    neighbours: Neighbours = 0,
    address: AddressOption = None,
    shard_size: ShardSize = 0,
    mix: Mix = False,
    discard: Annotated[bool, typer.Option("--discard", help="Delete the old batch in DIR and begin anew.")] = False,
) -> None:
    """Plan a batch without running it: read the manifest, name the releases, split it into shards."""
    with _explained():
        plan = _planned(source, out, release, kind, neighbours, address, shard_size, 0, mix=mix, discard=discard)
        say(
            f"{plan.images:,} images in {plan.shards:,} shards; run them with `dl4all batch resume {out}`, or one each with `dl4all batch work {out}`"
        )


@batch_app.command("resume")
def resume_batch(
    location: Location,
    address: AddressOption = None,
    engine: EngineOption = EngineName.LOCAL,
    cluster: Cluster = None,
    workers: Workers = 0,
    in_flight: InFlight = 64,
    patience: Patience = 600.0,
    folder: Folder = None,
    mix: Mix = False,
) -> None:
    """Go on with a batch: what is finished stays, the rest is scored, then the shards are merged."""
    with _explained():
        from clients.batch.plan import read_plan
        from clients.batch.store import Store

        plan = read_plan(Store(location))
        _run(location, plan, _work(location, address, folder, in_flight, patience), engine, cluster, workers, mix=mix)


@batch_app.command("work")
def work_on_batch(
    location: Location,
    shard: Annotated[
        int | None, typer.Option(help="The shard; without it all that no other worker has.", envvar="JOB_COMPLETION_INDEX", min=0, show_default=False)
    ] = None,
    address: AddressOption = None,
    in_flight: InFlight = 64,
    patience: Patience = 600.0,
    folder: Folder = None,
) -> None:
    """Be a worker: score one shard, or all that are free, and end. This is what a pod of an Indexed Job of Kubernetes runs.

    The pod's JOB_COMPLETION_INDEX is the shard. Exit status 0: finished; 75: the gateway was not ready for too long, start it again later;
    1: it would fail again; 130: interrupted. A second worker on the same shard waits until the first one has ended.
    """
    with _explained():
        from clients.batch.worker import run

        raise typer.Exit(run(_work(location, address, folder, in_flight, patience), shard))


@batch_app.command("status")
def show_status(location: Location, as_json: AsJson = False) -> None:
    """Say how far a batch is, shard by shard."""
    with _explained():
        from clients.batch.plan import read_plan
        from clients.batch.status import StatusReader
        from clients.batch.store import Store

        store = Store(location)
        status = StatusReader(store, read_plan(store)).read()
        if as_json:
            print_json(_status_form(status))
            return
        for shard in status.shards:
            state = "finished" if shard.is_finished else "held by a worker" if shard.is_held else "begun" if shard.token else "waits"
            typer.echo(f"shard {shard.shard:6d}  {shard.done:7,d} of {shard.images:7,d}  failed {shard.failed:6,d}  {state}")
        say(f"{status.done:,} of {status.images:,} images, {status.failed:,} failed", "green" if status.is_finished else "yellow")


@batch_app.command("merge")
def merge_batch(location: Location, mix: Mix = False) -> None:
    """Merge the finished shards into `DIR/results.parquet`, a row for every line of the manifest."""
    with _explained():
        from clients.batch.plan import read_plan
        from clients.batch.store import Store

        store = Store(location)
        _merge(store, read_plan(store), mix=mix)


@batch_app.command("report")
def report_batch(
    location: Location,
    out: Annotated[Path | None, typer.Option(help="File of the page. Default: DIR/report.html.", show_default=False, callback=in_a_folder)] = None,
) -> None:
    """Write one page on a merged batch: rate, findings, failures by reason, drift of focus and score, slowest images."""
    with _explained():
        from clients.batch.merging import read_results
        from clients.batch.plan import read_plan
        from clients.batch.report import render_batch_report
        from clients.batch.store import Store

        store = Store(location)
        page = render_batch_report(read_plan(store), read_results(store)).encode()
        if out is None:
            store.write("report.html", page)
        else:
            out.write_bytes(page)
        say(f"Report: {out or f'{store.location}/report.html'}")


def _planned(
    source: str,
    out: str,
    release: str,
    kind: Kind,
    neighbours: int,
    address: str | None,
    shard_size: int,
    workers: int,
    *,
    mix: bool,
    discard: bool,
) -> Plan:
    """The plan in the folder of the batch: the one that is there, where it is the same batch, or a new one."""
    from clients.batch.errors import BatchError
    from clients.batch.manifest import read_source
    from clients.batch.plan import Options, differences, find_plan, make_plan, rewrite_plan, write_plan
    from clients.batch.sharing import usual_shard_size, usual_workers
    from clients.batch.store import Store

    store = Store(out)
    found = read_source(source)
    if found.passed_over:
        say(f"passed over: {found.passed_over}", "yellow")
    releases = asyncio.run(_releases(address, {release, *(line.release for line in found.lines)}))
    named = {name: made for name, made in releases.items() if name and any(line.release == name for line in found.lines)}
    size = shard_size or usual_shard_size(len(found.lines), workers or usual_workers(address))
    new = make_plan(found.lines, Options(releases[release], kind.value, neighbours), named, address, size)
    old = None if discard else find_plan(store)
    if old is not None and (different := differences(old, new)):
        if not mix or old.manifest_sha256 != new.manifest_sha256:
            told = "Give another --out, or --discard to delete the old results" + (
                "." if old.manifest_sha256 != new.manifest_sha256 else ", or --mix to keep them beside new ones."
            )
            raise BatchError(f"{out} holds another batch: {'; '.join(different)}. {told}")
        new = make_plan(found.lines, new.options, named, address, old.shard_size)
        rewrite_plan(store, new)
        return new
    if old is not None:
        return old
    if discard:
        store.delete()
    write_plan(store, new, found.lines)
    return new


async def _releases(address: str | None, names: set[str]) -> dict[str, str]:
    """Release ids by name; those of this machine are read from its files."""
    from clients.batch.errors import BatchError
    from clients.batch.gateways import open_gateway, resolve_releases

    if address is not None:
        async with open_gateway(address) as gateway:
            return await resolve_releases(gateway, names)
    from services.common.errors import DomainError
    from services.common.releases import ReleaseStore
    from services.common.settings import CommonSettings

    settings = CommonSettings()
    try:
        store = ReleaseStore(settings.releases, settings.model_repository)
        return {name: store.resolve(name).id for name in names}
    except DomainError as error:
        raise BatchError(error.message) from error


def _work(location: str, address: str | None, folder: Path | None, in_flight: int, patience: float) -> Work:
    from clients.batch.worker import Work

    return Work(location, address, folder=folder, most=float(in_flight), patience=patience)


def _run(location: str, plan: Plan, work: Work, name: EngineName, cluster: str | None, workers: int, *, mix: bool) -> None:
    from clients.batch.sharing import THREADS, THREADS_VARIABLE, usual_workers
    from clients.batch.status import StatusReader
    from clients.batch.store import Store

    store = Store(location)
    if name is EngineName.KUBERNETES:
        say(f"{plan.images:,} images in {plan.shards:,} shards are planned in {store.location}. Start an Indexed Job with completions: {plan.shards}")
        say(f"whose pods run `dl4all batch work {store.location}`; then `dl4all batch merge {store.location}` (docs/batch.md).")
        return
    status = StatusReader(store, plan)
    began = time.monotonic()
    before = status.read().done
    address = work.address or plan.address
    count = workers or usual_workers(address)
    if address is None and THREADS_VARIABLE not in os.environ and (name is EngineName.RAY or min(count, plan.shards) > 1):
        work = replace(work, threads=THREADS)
    with _progress(status) as on_look:
        _engine(name, cluster, count).run(plan, work, on_look)
    now, seconds = status.read(), time.monotonic() - began
    done = now.done - before
    say(f"{done:,} images in {seconds:.1f} s ({done / seconds:.1f} a second); {now.failed:,} of {now.images:,} without a diagnosis", "green")
    _merge(store, plan, mix=mix)


def _engine(name: EngineName, cluster: str | None, workers: int) -> Engine:
    if name is EngineName.RAY:
        from clients.batch.engines.ray import RayEngine

        return RayEngine(cluster, workers)
    from clients.batch.engines.local import LocalEngine

    return LocalEngine(workers)


def _merge(store: Store, plan: Plan, *, mix: bool) -> None:
    from clients.batch.merging import merge

    say(f"Results: {merge(store, plan, mixed=mix)}; `dl4all batch report {store.location}` makes a page of them")


@contextmanager
def _progress(status: Any) -> Iterator[Callable[[], None]]:
    """A bar with rate and time left; the rate is that of the last half minute."""
    columns = (
        TextColumn("scoring"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("failed {task.fields[failed]:,}"),
        TimeElapsedColumn(),
    )
    seen: deque[tuple[float, int]] = deque()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        now = status.read()
        bar = progress.add_task("scoring", total=now.images, completed=now.done, rate="", failed=now.failed)

        def look() -> None:
            if progress.disable:
                return
            now = status.read()
            seen.append((time.monotonic(), now.done))
            while len(seen) > 2 and seen[-1][0] - seen[0][0] > _RATE_SECONDS:
                seen.popleft()
            progress.update(bar, completed=now.done, failed=now.failed, rate=_rate_words(seen, now.images))

        yield look


def _rate_words(seen: deque[tuple[float, int]], images: int) -> str:
    """Images a second, and the time left at that rate."""
    (then, before), (now, done) = seen[0], seen[-1]
    if now <= then or done <= before:
        return ""
    rate = (done - before) / (now - then)
    left = int((images - done) / rate)
    return f"{rate:.1f} a second, {left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left"


def _status_form(status: Status) -> dict[str, Any]:
    shards = [
        {"shard": s.shard, "images": s.images, "done": s.done, "failed": s.failed, "finished": s.is_finished, "token": s.token, "held": s.is_held}
        for s in status.shards
    ]
    return {"images": status.images, "done": status.done, "failed": status.failed, "finished": status.is_finished, "shards": shards}


@contextmanager
def _explained() -> Iterator[None]:
    """Turn an error that a user can put right into one line and exit status 1, and an interruption into 130."""
    try:
        from clients.batch.errors import BatchError, GatewayNotReadyError
        from clients.batch.worker import NOT_READY_STATUS
    except ImportError as error:
        say(f"failed: {error.name} is not installed; this command needs the extra `batch` of the server's wheel (docs/install.md)", "red")
        raise typer.Exit(1) from error
    try:
        yield
    except GatewayNotReadyError as error:
        say(f"failed: {error}", "red")
        raise typer.Exit(NOT_READY_STATUS) from error
    except ServiceError as error:
        say(f"failed: {error.message} ({error.reason})", "red")
        raise typer.Exit(1) from error
    except (BatchError, OSError) as error:
        say(f"failed: {error}", "red")
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        say("interrupted; what is finished is kept, `dl4all batch resume` goes on", "yellow")
        raise typer.Exit(130) from error
