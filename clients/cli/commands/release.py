"""Build, check, activate and list releases."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from clients.cli.forms import release_form
from clients.cli.options import BUILD, MODELS, RELEASES, Address, Data, Models, Releases, explained
from clients.cli.running import asyncio_exit, print_json, say
from clients.common.opening import open_client
from dl4all.diagnosis.v1 import diagnosis_pb2

release_app = typer.Typer(
    no_args_is_help=True, help="Build, check and list releases. A release is a network with all files and numbers that belong to it."
)


@release_app.command("build")
def build_release(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run of `dl4all train` without --folds.")],
    data: Data,
    release: Annotated[str, typer.Option("--id", help="Id of the release, such as histotnet-1.")],
    cross_validation: Annotated[
        Path | None, typer.Option(help="Folder of the same recipe's run with --folds; without it the card says so.", show_default=False)
    ] = None,
    detects: Annotated[str, typer.Option(help="lymphoblast or blast_lineage_unspecified; needed for your own cells only.")] = "",
    replace: Annotated[bool, typer.Option(help="Replace a release of this id.")] = False,
    exemplars: Annotated[int, typer.Option(help="Most references that have similarity maps of their own.", min=0, max=1000)] = 1000,
    cpu_file: Annotated[
        str, typer.Option(help="float32 or int8: the file for CPUs, where int8 passes. Default: as the gates say.", show_default=False)
    ] = "",
    gates: Annotated[str, typer.Option(help="Recipe, or TOML file of your own, whose gates hold. Default: those of the run.")] = "",
    half: Annotated[
        bool, typer.Option(help="Add a float16 file for GPUs even where they could share the float32 file with CPUs; the release gets larger.")
    ] = True,
    releases: Releases = RELEASES,
    model_repository: Models = MODELS,
    cache: Annotated[Path, typer.Option(help="Folder where prepared crops are kept.")] = BUILD / "packs",
) -> None:
    """Export a run, pass the gates, calibrate, choose the library, score the test groups, write the release.

    The test groups are scored at the very end, once per finished candidate; log every scoring in docs/results.md.
    """
    with explained():
        from training.crops.sources import Sources
        from training.releases.build import BuildOptions, build, gates_for

        limits = gates_for(run, gates, cpu_file)
        options = BuildOptions(run, cross_validation, release, releases, model_repository, detects, replace, exemplars, half, limits)
        built = build(options, Sources.find(data, cache))
        for gate in built.gates:
            typer.echo(str(gate))
        typer.echo(
            f"model_int8.onnx takes {1 / built.int8_speed_up:.2f} of the CPU time of float32 here; --cpu-file says which of them CPUs are served"
        )
        for name, figure in built.figures.items():
            typer.echo(f"{name}: {figure}")
        for line in built.by_patient:
            typer.echo(line)
        _say_built(releases, model_repository, release)


def _say_built(releases: Path, model_repository: Path, release: str) -> None:
    from services.common.releases import ReleaseStore

    current = ReleaseStore(releases, model_repository).index.current
    say(f"built: {releases / release}", "green")
    if release not in current.values():
        say(f"not yet the current one of its system: `dl4all release activate {release}` makes it so")


@release_app.command("build-patches")
def build_patch_release(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run of `dl4all train` with a recipe of patches, on composed fields.")],
    data: Data,
    release: Annotated[str, typer.Option("--id", help="Id of the release, such as all-idb-patches-1.")],
    cells: Annotated[str, typer.Option(help="Release or system whose cell network, library and calibration it takes over.")] = "plain_resnet",
    replace: Annotated[bool, typer.Option(help="Replace a release of this id.")] = False,
    releases: Releases = RELEASES,
    model_repository: Models = MODELS,
    cache: Annotated[Path, typer.Option(help="Folder where prepared crops are kept.")] = BUILD / "packs",
) -> None:
    """Export a network of patches, tune its thresholds on calibration patients, score the test patients, write the release.

    `--data` names the pack of `dl4all data compose` and the folder of its cells, from which whole fields are composed again to measure where cells
    are found. Log every scoring of the test patients in docs/results.md.
    """
    with explained():
        from training.crops.sources import Sources
        from training.releases.build_patches import PatchBuildOptions, build

        figures = build(PatchBuildOptions(run, release, cells, releases, model_repository, replace), Sources.find(data, cache))
        for name, figure in figures.items():
            typer.echo(f"{name}: {figure}")
        _say_built(releases, model_repository, release)


@release_app.command("locator")
def install_release_locator(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run of `dl4all train locator` without --folds.")],
    model: Annotated[str, typer.Option("--model", help="Its name in the model repository, such as locator_1.")],
    record: Annotated[
        Path, typer.Option(help="Record of `dl4all study locators`: figures of networks that have not seen the fields, for the card.")
    ] = Path("docs/runs/locators.json"),
    replace: Annotated[bool, typer.Option(help="Replace a model of this name.")] = False,
    releases: Releases = RELEASES,
    model_repository: Models = MODELS,
) -> None:
    """Export a locator and let it find the cells for all releases that name no locator of their own.

    Running services take it with their next request. Networks judge cells as they are outlined: measure the releases with it first,
    `dl4all study locator-releases`.
    """
    with explained():
        from training.evaluation.locators import figures_of
        from training.releases.locator import LocatorOptions, install_locator

        installed = install_locator(LocatorOptions(run, model, figures_of(record), releases, model_repository, replace))
        say(f"{installed.model} finds the cells: {model_repository / installed.model}", "green")


@release_app.command("import-allnet")
def import_allnet(
    checkpoint: Annotated[Path, typer.Argument(help="Published state dict, modelsave_1_final.pt.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.onnx", help="File to write.")],
    mean: Annotated[float, typer.Option(help="Mean that its data were normalised by, 0..1.")] = 0.5,
    std: Annotated[float, typer.Option(help="Standard deviation that its data were normalised by, 0..1.", min=1e-6)] = 0.25,
) -> None:
    """Export a published ALLNet checkpoint to ONNX: uint8 NHWC in; logits, embedding and place embeddings out.

    Nothing is unpickled. Mean and deviation are not part of a checkpoint: give those of its training.
    """
    with explained():
        from training.export.allnet import import_allnet as export

        imported = export(checkpoint, out, mean, std)
        say(f"{out}: {imported.architecture.value}, {imported.classes} classes, differs from torch by at most {imported.gap:.1e}", "green")


@release_app.command("activate")
def activate_release(
    release: Annotated[str, typer.Argument(help="Id of the release.")],
    margin: Annotated[
        float,
        typer.Option(
            help="How much lower a grown library may make, on calibration patients, each share that docs/library.md names.", min=0.0, max=1.0
        ),
    ] = 0.02,
    releases: Releases = RELEASES,
    model_repository: Models = MODELS,
    default: Annotated[bool, typer.Option("--default", help="Also use it for requests that name no release and no system.")] = False,
) -> None:
    """Make a release the current one of its system. One with a grown library is refused if it does worse on calibration patients.

    Running services take it with their next request; no call is lost. Example: `dl4all release activate our-lab-1 --default`; the id of an older
    release goes back to it.
    """
    with explained():
        from services.common.releases import ReleaseStore
        from training.releases.library_growth import check_activation
        from training.releases.write import activate

        store = ReleaseStore(releases, model_repository)
        candidate = store.resolve(release)
        current = store.index.current.get(candidate.system)
        check_activation(store.resolve(current) if current else None, candidate, margin)
        activate(candidate, releases, as_default=default)
        say(f"{candidate.id} is the current release of {candidate.system}{' and the default' if default else ''}", "green")


@release_app.command("add-limit")
def add_limit_to_release(
    release: Annotated[str, typer.Argument(help="Id of the release.")],
    limit: Annotated[str, typer.Argument(help="A sentence: what the release fails at, and how that is known.")],
    releases: Releases = RELEASES,
    model_repository: Models = MODELS,
) -> None:
    """State a limit that was found after a release was built. The model card shows it; `dl4all release list` shows it after a restart."""
    with explained():
        from services.common.releases import ReleaseStore
        from training.releases.write import add_limit

        changed = add_limit(ReleaseStore(releases, model_repository).resolve(release), limit, releases, model_repository)
        say(f"{changed.id} states {len(changed.limits)} limits", "green")


@release_app.command("verify")
def verify_releases(
    releases: Releases = RELEASES,
    model_repository: Models = MODELS,
) -> None:
    """Check every release: all files are there and match their checksums, models and libraries load and fit each other."""
    with explained():
        from training.releases.verify import check_releases

        for line in check_releases(releases, model_repository):
            typer.echo(line)


@release_app.command("list")
def list_releases(
    address: Address = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per release on standard output, nothing else there.")] = False,
    releases: Releases = RELEASES,
    model_repository: Models = MODELS,
) -> None:
    """List the releases that can be chosen, with their figures and limits; with --address those of a gateway."""

    async def of_gateway() -> int:
        async with open_client(address) as client:
            _show_releases(await client.list_releases(), as_json)
        return 0

    if address is not None:
        asyncio_exit(of_gateway())
        return
    with explained():
        from services.common.releases import ReleaseStore
        from services.gateway.answers import releases_message

        _show_releases(releases_message(ReleaseStore(releases, model_repository)).releases, as_json)


def _show_releases(releases: Iterable[diagnosis_pb2.Release], as_json: bool) -> None:
    for release in releases:
        form = release_form(release)
        if as_json:
            print_json(form)
            continue
        marks = [name for name, holds in (("default", release.is_default), ("current", release.is_current)) if holds]
        typer.echo(f"{release.system}  {release.release_id}" + (f"  ({', '.join(marks)})" if marks else ""))
        typer.echo(f"  {release.title}\n  detects {form['detects']}; input {release.input}, {release.side} px")
        for figure in form["figures"]:
            interval = "" if figure["low"] is None else f"  [{figure['low']:.4f}, {figure['high']:.4f}]"
            typer.echo(f"  {figure['value']:8.4f}{interval:20s}  {figure['name']}")
        for limit in release.limits:
            typer.echo(f"  ! {limit}")
