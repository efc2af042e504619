"""``dl4all library``: what the reference library of a release holds, and how it grows by confirmed cells."""

from __future__ import annotations

import hashlib
import os
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import grpc
import typer
from rich.progress import track

from clients.cli.backends import Backend, open_backend
from clients.cli.images import expand
from clients.cli.options import MODELS, RELEASES, Address, Models, Releases, explained
from clients.cli.running import asyncio_exit, console, print_json, say
from dl4all.classification.v1 import classification_pb2
from dl4all.imaging.v1 import imaging_pb2
from dl4all.patching.v1 import patching_pb2
from dl4all.preprocessing.v1 import preprocessing_pb2
from dl4all.retrieval.v1 import retrieval_pb2
from dl4all_client.client import DEFAULT_TIMEOUT
from dl4all_client.errors import ServiceError

library_app = typer.Typer(no_args_is_help=True, help="Known cells: what a library holds, and how it grows by cells that you confirm.")
_STORE: Final = "DL4ALL_RETRIEVAL_ADDITIONS"

Store = Annotated[Path, typer.Option(help="SQLite file of confirmed cells.", envvar=_STORE)]
Release = Annotated[str, typer.Option(help="Release id or system. Default: the default release.")]
DEFAULT_STORE: Final = Path("additions.sqlite")


@library_app.command("show")
def show(release: Release = "", address: Address = None, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
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
    release: Release = "",
    store: Store = DEFAULT_STORE,
    address: Address = None,
    key: Annotated[str, typer.Option(help="Idempotency key: repeat a call with it and the cells are kept once. Default: made up.")] = "",
) -> None:
    """Keep confirmed cells for the next version of a library. All of them, or none.

    They go to `--store` of this machine, `additions.sqlite` in this folder if nothing else is said; with `--address` to the file of that server.
    """
    if address is None:
        os.environ[_STORE] = str(store)
    elif (given := context.get_parameter_source("store")) is not None and given.name == "COMMANDLINE":
        raise typer.BadParameter("a server keeps cells in its own file, which DL4ALL_RETRIEVAL_ADDITIONS names there", param_hint="--store")
    facts = retrieval_pb2.NewReference(is_blast=blast, cell_class=cell_class, patient=patient)
    request = retrieval_pb2.AddReferencesRequest(release=release, idempotency_key=key or uuid.uuid4().hex, confirmed_by=confirmed_by, source=source)
    asyncio_exit(_add(expand(images), facts, request, address))


@library_app.command("list")
def list_additions(
    store: Store = DEFAULT_STORE,
    withdrawn: Annotated[bool, typer.Option(help="List withdrawn additions as well.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per addition.")] = False,
) -> None:
    """List confirmed cells: what, of whom, by whom and when."""
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
                "withdrawn_by": addition.withdrawn_by,
                "withdrawn_why": addition.withdrawn_why,
            }
            if as_json:
                print_json(form)
                continue
            what = "blast" if cell.is_blast else "normal"
            gone = f"  withdrawn by {addition.withdrawn_by}: {addition.withdrawn_why}" if addition.withdrawn_by else ""
            typer.echo(f"{addition.id:5d}  {what:6s} {cell.cell_class}  {addition.source}/{cell.patient}  {addition.confirmed_by}, {when}{gone}")


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
    release: Release = "",
    store: Store = DEFAULT_STORE,
    releases: Releases = RELEASES,
    model_repository: Models = MODELS,
    cache: Annotated[Path, typer.Option(help="Folder where prepared crops are kept.")] = Path("build/packs"),
) -> None:
    """Build a release with the library grown by all additions in force, recalibrated. It is used once it is activated.

    Example: `dl4all library build --data aml_cells --id plain-resnet-1.lib2`, then `dl4all release activate plain-resnet-1.lib2`.
    """
    with explained():
        from training.crops.sources import Sources
        from training.releases.library_growth import GrowthOptions, grow

        grown = grow(GrowthOptions(release, new, store, releases, model_repository), Sources.find(data, cache) if data else None)
        for name, value in grown.after.items():
            typer.echo(f"{name}: {grown.before[name]:.3f} -> {value:.3f}")
        say(f"built: {releases / grown.release}, {grown.added} cells added", "green")


async def _show(release: str, address: str | None, as_json: bool) -> int:
    async with open_backend(address) as backend:
        name = await _release_id(backend, release)
        library = await backend.retrieval.GetLibrary(retrieval_pb2.GetLibraryRequest(release=name), timeout=DEFAULT_TIMEOUT)
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


async def _add(paths: list[Path], facts: retrieval_pb2.NewReference, request: retrieval_pb2.AddReferencesRequest, address: str | None) -> int:
    async with open_backend(address) as backend:
        request.release = await _release_id(backend, request.release)
        for path in track(paths, "reading", console=console, transient=True):
            request.references.append(await _reference(path, facts, request.release, backend))
        answer = await backend.retrieval.AddReferences(request, timeout=DEFAULT_TIMEOUT)
    again = " (they were kept before)" if answer.repeated_call else ""
    say(f"kept {len(answer.addition_ids)} cells under {', '.join(map(str, answer.addition_ids))}{again}; key {request.idempotency_key}", "green")
    return 0


async def _reference(path: Path, facts: retrieval_pb2.NewReference, release: str, backend: Backend) -> retrieval_pb2.NewReference:
    """One image's cell as the networks of the release see it, with its embedding."""
    image = path.read_bytes()
    located = patching_pb2.LocateCellsRequest(image=image, kind=imaging_pb2.ImageKind.IMAGE_KIND_CELL)
    try:
        pieces = [piece async for piece in backend.patching.LocateCells(located, timeout=DEFAULT_TIMEOUT)]
        crops = [crop for piece in pieces for crop in piece.crops]
        if not crops:
            raise ServiceError("INVALID_ARGUMENT", "NO_CELL", f"{path}: no nucleated cell was found.")
        (outcome,) = (
            await backend.preprocessing.Enhance(preprocessing_pb2.EnhanceRequest(release=release, crops=crops[:1]), timeout=DEFAULT_TIMEOUT)
        ).outcomes
        if not outcome.HasField("enhanced") or not outcome.enhanced.accepted:
            raise ServiceError("INVALID_ARGUMENT", "CELL_NOT_ACCEPTED", f"{path}: the cell is too blurred or too small to be a reference.")
        cells = [classification_pb2.ClassifyCell(pixels=outcome.enhanced.pixels)]
        asked = classification_pb2.ClassifyRequest(release=release, cells=cells, include_patch_embeddings=True)
        (judged,) = (await backend.classification.Classify(asked, timeout=DEFAULT_TIMEOUT)).cells
    except grpc.aio.AioRpcError as error:
        raise ServiceError.from_rpc(error) from error
    cell = pieces[0].cells[0]
    reference = retrieval_pb2.NewReference()
    reference.CopyFrom(facts)
    reference.embedding.extend(judged.embedding)
    reference.patch_embeddings, reference.rows, reference.columns = judged.patch_embeddings, judged.rows, judged.columns
    reference.image_sha256 = hashlib.sha256(image).hexdigest()
    reference.center_x, reference.center_y, reference.radius = cell.center_x, cell.center_y, cell.radius
    return reference


async def _release_id(backend: Backend, name: str) -> str:
    listed = await backend.systems()
    chosen = [r for r in listed if (name in (r.release, r.system if r.current else None)) or (not name and r.default)]
    if not chosen:
        raise ServiceError("NOT_FOUND", "RELEASE_UNKNOWN", f"No release or system is called {name!r}; see `dl4all systems`.")
    return str(chosen[0].release)
