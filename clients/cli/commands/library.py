"""``dl4all library``: what the reference library of a release holds, and how it grows by confirmed cells."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.progress import track

from clients.cli.images import expand
from clients.cli.options import MODELS, RELEASES, Address, Models, ReleaseOption, Releases, explained
from clients.cli.running import asyncio_exit, check_readable, console, print_json, say
from clients.common.opening import open_client
from dl4all_client import Reference, ServiceError
from services.common.image_files import shown

library_app = typer.Typer(no_args_is_help=True, help="Show the known cells of a library, and let it grow by cells that you confirm.")
_STORE: Final = "DL4ALL_RETRIEVAL_ADDITIONS"

Store = Annotated[Path, typer.Option(help="SQLite file of confirmed cells.", envvar=_STORE)]
DEFAULT_STORE: Final = Path("additions.sqlite")


@library_app.command("show")
def show(release: ReleaseOption = "", address: Address = None, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show what the library of a release holds."""
    asyncio_exit(_show(release, address, as_json))


@library_app.command("add")
def add(
    context: typer.Context,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE|DIR...", help="Images of one confirmed cell each.", show_default=False)],
    blast: Annotated[bool, typer.Option("--blast/--normal", help="Whether the cells are leukaemic blasts.")],
    cell_class: Annotated[str, typer.Option(help="Their class, such as lymphocyte.")],
    patient: Annotated[str, typer.Option(help="Your pseudonym of the patient; never a name.")],
    source: Annotated[str, typer.Option(help="Where they come from, such as your laboratory; no slash.")],
    confirmed_by: Annotated[str, typer.Option(help="Who confirmed them.")],
    release: ReleaseOption = "",
    store: Store = DEFAULT_STORE,
    address: Address = None,
    key: Annotated[str, typer.Option(help="Idempotency key: repeat a call with it and the cells are kept once. Default: made up.")] = "",
) -> None:
    """Keep confirmed cells for the next version of a library. All of them, or none.

    They go to `--store` on this machine, by default `additions.sqlite` in this folder; with `--address`, to the file of that server.
    """
    if address is None:
        os.environ[_STORE] = str(store)
    elif (given := context.get_parameter_source("store")) is not None and given.name == "COMMANDLINE":
        raise typer.BadParameter("a server keeps cells in its own file, which DL4ALL_RETRIEVAL_ADDITIONS names there", param_hint="--store")
    made = key or uuid.uuid4().hex

    def references(paths: list[Path]) -> Iterator[Reference]:
        for path in track(paths, "sending", console=console, transient=True):
            yield Reference(path.read_bytes(), blast, cell_class, patient)

    async def work() -> int:
        paths = expand(images)
        for path in paths:
            try:
                check_readable(path)
            except ServiceError as error:
                raise _of_image(path, error) from error
        async with open_client(address) as client:
            try:
                kept = await client.add_references(references(paths), source=source, confirmed_by=confirmed_by, idempotency_key=made, release=release)
            except ServiceError as error:
                number = error.metadata.get("image")
                raise error if number is None else _of_image(paths[int(number)], error) from error
        again = " (they were kept before)" if kept.repeated_call else ""
        say(f"kept {len(kept.addition_ids)} cells under {', '.join(map(str, kept.addition_ids))}{again}; key {made}", "green")
        return 0

    asyncio_exit(work())


@library_app.command("list")
def list_additions(
    store: Store = DEFAULT_STORE,
    withdrawn: Annotated[bool, typer.Option(help="List withdrawn additions as well.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per addition.")] = False,
) -> None:
    """List confirmed cells with class, patient, who confirmed them and when."""
    with explained():
        from services.retrieval.additions import AdditionStore

        for addition in AdditionStore(store).read(withdrawn=withdrawn):
            cell, when = addition.reference, datetime.fromtimestamp(addition.confirmed_at, UTC).isoformat(timespec="seconds")
            form = {
                "id": addition.id,
                "is_blast": cell.is_blast,
                "cell_class": cell.cell_class,
                "patient": cell.patient,
                "source": addition.source,
                "embedder": addition.embedder,
                "confirmed_by": addition.confirmed_by,
                "confirmed_at": when,
                "verified_as": addition.verified_as or None,
                "withdrawn_by": addition.withdrawn_by,
                "withdrawn_why": addition.withdrawn_why,
            }
            if as_json:
                print_json(form)
                continue
            what = "blast" if cell.is_blast else "normal"
            gone = f"  withdrawn by {addition.withdrawn_by}: {addition.withdrawn_why}" if addition.withdrawn_by else ""
            who = f"{addition.confirmed_by} ({addition.verified_as or 'unverified'})"
            typer.echo(f"{addition.id:5d}  {what:6s} {cell.cell_class}  {addition.source}/{cell.patient}  {who}, {when}{gone}")


@library_app.command("withdraw")
def withdraw(
    ids: Annotated[list[int], typer.Argument(help="Numbers of additions, as `dl4all library list` shows them.")],
    by: Annotated[str, typer.Option(help="Who withdraws them.")],
    reason: Annotated[str, typer.Option(help="Why.")],
    store: Store = DEFAULT_STORE,
) -> None:
    """Withdraw additions: they stay on record and go into no library."""
    with explained():
        from services.retrieval.additions import AdditionStore

        say(f"withdrawn: {AdditionStore(store).withdraw(ids, by, reason)}", "green")


@library_app.command("build")
def build(
    new: Annotated[str, typer.Option("--id", help="Id of the new release, such as plain-resnet-1.lib2.")],
    data: Annotated[
        list[Path] | None,
        typer.Option(
            help="Data set, or pack, whose calibration patients recalibrate the release; needed where its library does not keep them.",
            show_default=False,
        ),
    ] = None,
    release: ReleaseOption = "",
    store: Store = DEFAULT_STORE,
    releases: Releases = RELEASES,
    model_repository: Models = MODELS,
    cache: Annotated[Path, typer.Option(help="Folder where prepared crops are kept.")] = Path("build/packs"),
) -> None:
    """Build a release whose library is grown by all additions that are not withdrawn, and calibrate it again. Activate it before use.

    Example: `dl4all library build --data aml_cells --id plain-resnet-1.lib2`, then `dl4all release activate plain-resnet-1.lib2`.
    """
    with explained():
        from training.crops.sources import Sources
        from training.releases.library_growth import GrowthOptions, grow

        grown = grow(GrowthOptions(release, new, store, releases, model_repository), Sources.find(data, cache) if data else None)
        for name, value in grown.after.items():
            typer.echo(f"{name}: {grown.before[name]:.3f} -> {value:.3f}")
        say(f"built: {releases / grown.release}, {grown.added} cells added", "green")


def _of_image(path: Path, error: ServiceError) -> ServiceError:
    return ServiceError(error.code, error.reason, f"{shown(path)}: {error.message}")


async def _show(release: str, address: str | None, as_json: bool) -> int:
    async with open_client(address) as client:
        answer = await client.get_library(release)
    name, library = answer.release, answer.library
    classes = [{"cell_class": c.cell_class, "is_blast": c.is_blast, "count": c.count} for c in library.classes]
    if as_json:
        form = {"release": name, "sha256": library.sha256, "embedder": library.embedder, "dimension": library.dimension, "classes": classes}
        print_json({**form, "patients": library.patients, "pending_additions": library.pending_additions})
        return 0
    typer.echo(f"{name}: {sum(c.count for c in library.classes)} known cells of {library.patients} patients, {library.dimension} numbers each")
    typer.echo(f"  embedder {library.embedder}, library {library.sha256[:16]}, {library.pending_additions} additions wait")
    for known in library.classes:
        typer.echo(f"  {known.count:5d}  {'blast ' if known.is_blast else 'normal'}  {known.cell_class}")
    return 0
