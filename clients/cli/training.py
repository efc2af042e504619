"""Commands that need the extra ``train``: train, pack, import-allnet; and the releases that come of it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer

from clients.cli.running import say

Data = Annotated[
    list[Path],
    typer.Option(help="Folder of a data set, folder that holds several, or a .pack; may be given several times.", show_default=False),
]
Device = Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu or cuda.")]
Releases = Annotated[Path, typer.Option(help="Folder of releases.", envvar="DL4ALL_RELEASES")]
Models = Annotated[Path, typer.Option(help="Folder of models.", envvar="DL4ALL_MODEL_REPOSITORY")]
_BUILD = Path("build")

release_app = typer.Typer(no_args_is_help=True, help="Build, check and list releases: what belongs together, with every checksum.")


def add_commands(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(train)
    app.command()(pack)
    app.command("import-allnet")(import_allnet)
    app.command("patches")(patches)
    app.command("compose")(compose)
    app.add_typer(release_app, name="release")


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            help="adaptive_unsharpening, histotnet, allnet, all_idb_patches, dl4all_cnn, dl4all_vit, dss or plain_resnet; or a TOML file of your own."
        ),
    ],
    data: Data,
    preset: Annotated[str, typer.Option(help="published: the paper's protocol; grouped: by patient, small enough for 2 cores.")] = "grouped",
    seed: Annotated[int, typer.Option(help="Decides weights, order, augmentation and random divisions.", min=0)] = 0,
    folds: Annotated[int, typer.Option(help="Cross-validate by patient in this many folds instead of one final network.", min=0)] = 0,
    all_patients: Annotated[
        bool, typer.Option("--all-patients", help="With --folds: test patients as well. A last estimate: choose nothing by it.")
    ] = False,
    changes: Annotated[list[str] | None, typer.Option("--set", help="Change a switch: fine_tuning.epochs=5. Any number.", show_default=False)] = None,
    source: Annotated[str, typer.Option(help="Source data set, where --data names several.")] = "",
    target: Annotated[str, typer.Option(help="Target data set, where --data names several.")] = "",
    name: Annotated[str, typer.Option(help="Folder of the run below RUNS. Default: recipe, preset, seed.")] = "",
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")] = _BUILD / "runs",
    cache: Annotated[Path, typer.Option(help="Folder where prepared crops are kept.")] = _BUILD / "packs",
    device: Device = "auto",
) -> None:
    """Train a recipe: pretraining on a source and fine-tuning on a target, or both at once. Stop it at any time; the same command goes on.

    Example: `dl4all train histotnet --data DATA --folds 3`, then `tensorboard --logdir build/runs`.

    Several GPUs or machines: `torchrun --nproc-per-node 4 -m clients.cli.main train ...`.
    """
    with explained():
        from training import interleaved_training, patch_cross_validation, patch_training, report, transfer
        from training.devices import place
        from training.prepared import Sources
        from training.recipes.config import load_recipe

        given = load_recipe(recipe, preset, changes or ())
        words = [f"cv{folds}"] * bool(folds) + ["all"] * all_patients + [str(seed)] + [_word(w) for w in (source, target, *(changes or [])) if w]
        named = name or "-".join([Path(recipe).stem, preset, *words])
        with place(device) as at:
            options = transfer.TransferOptions(given, source, target, seed, folds, runs, named, all_patients)
            judges_patches = given.learns == "patches" and not folds
            if given.learns == "patches":
                way = patch_training if judges_patches else patch_cross_validation
            else:
                way = interleaved_training if given.interleaves else transfer
            folder = way.run(options, Sources.find(data, cache), at)
            if at.leads:
                for line in patch_training.write_patch_report(folder) if judges_patches else report.write_report(folder):
                    typer.echo(line)
                say(f"done: {folder}", "green")


def pack(
    dataset: Annotated[Path, typer.Argument(help="Folder of one data set.")],
    out: Annotated[Path, typer.Option(help="File to write, ending in .pack.")],
    side: Annotated[int, typer.Option(help="Side of the crops in px.", min=32, max=1024)] = 128,
    kind: Annotated[str, typer.Option("--input", help="registered_sharpened or registered (cells), or center_crop.")] = "",
    crop: Annotated[int, typer.Option("--center-crop", help="Side of the middle that is cut out, px; 0 for the whole image.", min=0)] = 0,
    quality: Annotated[int, typer.Option(help="JPEG quality 1..100 of the stored crops; 0 keeps every pixel as it is.", min=0, max=100)] = 92,
    level: Annotated[str, typer.Option(help="Level of ADP: 1, 2, 3, or all.")] = "1",
    subject: Annotated[
        str, typer.Option(help="What crops show: the cell of each image, or nothing: a place of it without a nucleated cell.")
    ] = "cell",
    threshold: Annotated[str, typer.Option(help="How the focus threshold is chosen: quantile, tuned or tuned_legacy.")] = "quantile",
    focus_from: Annotated[Path | None, typer.Option(help="Pack whose focus parameters are taken over.", show_default=False)] = None,
    cache: Annotated[Path, typer.Option(help="Folder where prepared crops are kept.")] = _BUILD / "packs",
) -> None:
    """Put the crops of a data set with labels and groups into one small file: a GPU machine needs only that.

    A quality below lossless changes the pixels a little. A release is built from the very crops that its network was trained on, and
    says so where they were compressed.
    """
    with explained():
        from training.datasets.dataset import ImageKind
        from training.datasets.tissue import ALL_LEVELS, Level
        from training.errors import RecipeError
        from training.packs import SUFFIX, read_pack, write_pack
        from training.preparation import NOTHING
        from training.prepared import Sources, focus_of
        from training.recipes.config import Input, InputKind, Threshold

        if out.suffix != SUFFIX:
            raise RecipeError(f"The name of a pack ends in {SUFFIX}: {out.with_suffix(SUFFIX)}.")
        sources = Sources.find([dataset], cache)
        if len(sources.names) != 1:
            raise RecipeError(f"{dataset} holds several data sets: {', '.join(sources.names)}; name one.")
        (name,) = sources.names
        if level not in ("1", "2", "3", ALL_LEVELS):
            raise RecipeError(f"A level of ADP is 1, 2, 3 or all, not {level!r}.")
        if subject not in ("cell", NOTHING):
            raise RecipeError(f"Crops show a cell or nothing, not {subject!r}.")
        taxonomy = cast(Level, level if level == ALL_LEVELS else int(level))
        is_cell = sources.dataset(name, taxonomy).kind is ImageKind.CELL
        try:
            wanted = InputKind(kind or ("registered_sharpened" if is_cell and not crop else "center_crop"))
        except ValueError as error:
            raise RecipeError(f"An input is one of {', '.join(InputKind)}, not {kind!r}.") from error
        taken_over = read_pack(focus_from) if focus_from else None
        focus = focus_of(taken_over) if taken_over else None
        if threshold not in get_args(Threshold):
            raise RecipeError(f"A threshold is one of {', '.join(get_args(Threshold))}, not {threshold!r}.")
        crops = Input.model_validate({"kind": wanted, "side": side, "center_crop": crop, "subject": subject, "threshold": threshold})
        made = sources.pack(name, crops, taxonomy, focus)
        if taken_over is not None:
            made = replace(made, header=replace(made.header, threshold=taken_over.header.threshold))
        write_pack(made, out, quality)
        say(f"{out}: {len(made)} crops at {side} px, {out.stat().st_size / 2**20:.1f} MiB; {len(made.header.left_out)} images left out", "green")


def import_allnet(
    checkpoint: Annotated[Path, typer.Argument(help="Published state dict, modelsave_1_final.pt.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.onnx", help="File to write.")],
    mean: Annotated[float, typer.Option(help="Mean that its data were normalised by, 0..1.")] = 0.5,
    std: Annotated[float, typer.Option(help="Standard deviation that its data were normalised by, 0..1.", min=1e-6)] = 0.25,
) -> None:
    """Export a published ALLNet checkpoint to ONNX: uint8 NHWC in; logits, embedding and patch embeddings out.

    Nothing is unpickled. Mean and deviation are not part of a checkpoint: give those of its training.
    """
    with explained():
        from training.export.allnet import import_allnet as export

        imported = export(checkpoint, out, mean, std)
        say(f"{out}: {imported.architecture.value}, {imported.classes} classes, differs from torch by at most {imported.gap:.1e}", "green")


def patches(
    fields: Annotated[Path, typer.Argument(metavar="ALL_IDB1", help="Folder with im/, and xyc/ with other/, or merged/.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder for patches/ and the table.")],
    flush: Annotated[bool, typer.Option("--flush", help="Cover the right and bottom border as well; not in the published data.")] = False,
    legacy_drop_first: Annotated[
        bool, typer.Option("--legacy-drop-first", help="Lose the first point of every file in other/, as the published program does.")
    ] = False,
) -> None:
    """Cut the fields of ALL-IDB1 into ALL-IDB Patches: 256 px, a quarter overlap, two independent labels per patch.

    Example: `dl4all patches ALL_IDB1 all_idb_patches`; the result is a data set for `dl4all train`.
    """
    with explained():
        from training.datasets.all_idb_patches import write_patches

        written = write_patches(fields, out, flush=flush, legacy_drop_first=legacy_drop_first)
        say(
            f"{out}: {written.patches} patches; lymphoblasts in {written.lymphoblasts}, other cells in {written.others}, "
            f"both in {written.both}, neither in {written.neither}",
            "green",
        )


def compose(
    cells: Annotated[Path, typer.Argument(metavar="CELLS", help="Folder of a data set of single cells with patients.")],
    out: Annotated[Path, typer.Option(help="File to write, ending in .pack.")],
    fields: Annotated[int, typer.Option(help="Fields per training patient.", min=1, max=1000)] = 12,
    judged_fields: Annotated[int, typer.Option(help="Fields per calibration or test patient.", min=1, max=1000)] = 8,
    side: Annotated[int, typer.Option(help="Side of the stored patches in px.", min=32, max=1024)] = 128,
    seed: Annotated[int, typer.Option(help="Decides which cells stand where.", min=0)] = 0,
    cache: Annotated[Path, typer.Option(help="Folder where prepared crops are kept.")] = _BUILD / "packs",
) -> None:
    """Compose fields of single cells, each field of one patient, and cut them into labelled patches.

    Example: `dl4all compose aml_cells --out composed.pack`, then `dl4all train all_idb_patches --data composed.pack`.
    """
    with explained():
        from training.composition import Composition, compose_pack
        from training.errors import RecipeError
        from training.packs import SUFFIX, write_pack
        from training.prepared import Sources

        if out.suffix != SUFFIX:
            raise RecipeError(f"The name of a pack ends in {SUFFIX}: {out.with_suffix(SUFFIX)}.")
        sources = Sources.find([cells], cache)
        if len(sources.names) != 1:
            raise RecipeError(f"{cells} holds several data sets: {', '.join(sources.names)}; name one.")
        made = compose_pack(sources.dataset(sources.names[0]), Composition(fields, judged_fields, seed=seed), side)
        write_pack(made, out)
        shares = ", ".join(f"{name} in {share:.1%}" for name, share in zip(made.header.classes, made.labels.mean(axis=0), strict=True))
        say(f"{out}: {len(made)} patches; {shares}; {len(made.header.left_out)} patients gave no field", "green")


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
    exemplars: Annotated[int, typer.Option(help="References, at most, that have similarity maps of their own.", min=0, max=1000)] = 1000,
    half: Annotated[
        bool, typer.Option(help="Give GPUs a float16 file also where CPUs are given float32, which both can share: a larger release.")
    ] = True,
    releases: Releases = Path("releases"),
    model_repository: Models = Path("model_repository"),
    cache: Annotated[Path, typer.Option(help="Folder where prepared crops are kept.")] = _BUILD / "packs",
) -> None:
    """Export a run, pass the gates, calibrate, choose the library, score the test groups, write the release.

    The test groups are scored at the very end, once per finished candidate; log every scoring in docs/results.md.
    """
    with explained():
        from training.prepared import Sources
        from training.release_build import BuildOptions, build

        options = BuildOptions(run, cross_validation, release, releases, model_repository, detects, replace, exemplars, half)
        built = build(options, Sources.find(data, cache))
        for gate in built.gates:
            typer.echo(str(gate))
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
    releases: Releases = Path("releases"),
    model_repository: Models = Path("model_repository"),
    cache: Annotated[Path, typer.Option(help="Folder where prepared crops are kept.")] = _BUILD / "packs",
) -> None:
    """Export a network of patches, tune its thresholds on calibration patients, score the test patients, write the release.

    `--data` names the pack of `dl4all compose` and the folder of its cells, of which whole fields are composed again to measure where
    cells are found. Log every scoring of the test patients in docs/results.md.
    """
    with explained():
        from training.patch_release_build import PatchBuildOptions, build
        from training.prepared import Sources

        figures = build(PatchBuildOptions(run, release, cells, releases, model_repository, replace), Sources.find(data, cache))
        for name, figure in figures.items():
            typer.echo(f"{name}: {figure}")
        _say_built(releases, model_repository, release)


@release_app.command("activate")
def activate_release(
    release: Annotated[str, typer.Argument(help="Id of the release.")],
    margin: Annotated[float, typer.Option(help="How much lower sensitivity and coverage on calibration patients may be.", min=0.0, max=1.0)] = 0.02,
    releases: Releases = Path("releases"),
    model_repository: Models = Path("model_repository"),
    default: Annotated[bool, typer.Option("--default", help="Make it the answer to requests that name no release or system, too.")] = False,
) -> None:
    """Make a release the current one of its system. One with a grown library is refused if it does worse on calibration patients.

    Running services take it with their next request; no call is lost. Example: `dl4all release activate our-lab-1 --default`; the id of an
    older release goes back to that.
    """
    with explained():
        from services.common.releases import ReleaseStore
        from training.library_growth import check_activation
        from training.releases import activate

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
    releases: Releases = Path("releases"),
    model_repository: Models = Path("model_repository"),
) -> None:
    """State a limit that was found after a release was built; the model card shows it, and `dl4all systems` once the services are started again."""
    with explained():
        from services.common.releases import ReleaseStore
        from training.releases import add_limit

        changed = add_limit(ReleaseStore(releases, model_repository).resolve(release), limit, releases, model_repository)
        say(f"{changed.id} states {len(changed.limits)} limits", "green")


@release_app.command("verify")
def verify_releases(
    releases: Releases = Path("releases"),
    model_repository: Models = Path("model_repository"),
) -> None:
    """Check every release: all files are there and match their checksums, models and libraries load and fit each other."""
    with explained():
        from training.release_check import check_releases

        for line in check_releases(releases, model_repository):
            typer.echo(line)


@release_app.command("list")
def list_releases(
    releases: Releases = Path("releases"),
    model_repository: Models = Path("model_repository"),
) -> None:
    """List the releases: id, system, what it detects, main figure, whether it is current or the default."""
    with explained():
        from services.common.releases import ReleaseStore

        store = ReleaseStore(releases, model_repository)
        for release in store.releases:
            marks = [
                m for m, holds in (("default", release.id == store.index.default), ("current", release.id in store.index.current.values())) if holds
            ]
            main = next((f for f in release.figures if f.name == "AUC, test patients, fused"), None)
            auc = "" if main is None else f"AUC {main.value:.4f} [{main.low:.4f}, {main.high:.4f}]"
            typer.echo(f"{release.id:20s} {release.system:14s} {release.detects.value:28s} {auc:32s} {', '.join(marks)}")


def _word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._=]+", "_", text)


@contextmanager
def explained() -> Iterator[None]:
    """Turn what a user can put right into one line and exit status 1; an interruption into 130."""
    from services.common.errors import DomainError

    caught: tuple[Any, ...] = (DomainError, OSError)
    try:
        try:
            from training.errors import TrainingError

            caught = (*caught, TrainingError)
        except ImportError:
            pass
        yield
    except ImportError as error:
        say(f"failed: {error.name} is not installed; this command needs the extra `train`: pip install 'dl4all-serving[cpu,train]'", "red")
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        raise typer.Exit(130) from error
    except caught as error:
        interrupted = type(error).__name__ == "InterruptedTrainingError"
        process = f" (process {os.environ['RANK']})" if "RANK" in os.environ else ""
        say(str(error) if interrupted else f"failed{process}: {error}", "yellow" if interrupted else "red")
        raise typer.Exit(130 if interrupted else 1) from error
