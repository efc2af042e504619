"""Train a recipe; needs the extra ``train``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from clients.cli.options import BUILD, Data, Device, explained
from clients.cli.running import say


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            help="adaptive_unsharpening, histotnet, allnet, all_idb_patches, dl4all_cnn, dl4all_vit, dss, "
            "plain_resnet, efficientnet_lite0 or locator; or a TOML file of your own."
        ),
    ],
    data: Data,
    preset: Annotated[str, typer.Option(help="published: the paper's protocol; grouped: by patient, small enough for 2 cores.")] = "grouped",
    seed: Annotated[int, typer.Option(help="Seed of weights, order, augmentation and random divisions.", min=0)] = 0,
    folds: Annotated[int, typer.Option(help="Cross-validate by patient in this many folds instead of one final network.", min=0)] = 0,
    all_patients: Annotated[
        bool, typer.Option("--all-patients", help="With --folds: test patients as well. A last estimate; do not choose anything by it.")
    ] = False,
    changes: Annotated[list[str] | None, typer.Option("--set", help="Change a switch: fine_tuning.epochs=5. Any number.", show_default=False)] = None,
    source: Annotated[str, typer.Option(help="Source data set, where --data names several.")] = "",
    target: Annotated[str, typer.Option(help="Target data set, where --data names several.")] = "",
    name: Annotated[str, typer.Option(help="Folder of the run below RUNS. Default: recipe, preset, seed.")] = "",
    runs: Annotated[Path, typer.Option(help="Folder of all runs.")] = BUILD / "runs",
    cache: Annotated[Path, typer.Option(help="Folder where prepared crops are kept.")] = BUILD / "packs",
    checkpoint: Annotated[Path | None, typer.Option(help="Published ALLNet file, for --set start=allnet. Figures only.", show_default=False)] = None,
    device: Device = "auto",
) -> None:
    """Train a recipe: pretraining on a source and fine-tuning on a target, or both at once. Stop it at any time; the same command goes on.

    Example: `dl4all train histotnet --data DATA --folds 3`, then `tensorboard --logdir build/runs`.

    Several GPUs or machines: `torchrun --nproc-per-node 4 -m clients.cli.main train ...`.

    The recipe `locator` learns to find nucleated cells, from all sources below --data; --folds 3 gives three networks, each without a third of every
    source. It has no preset, source or target.
    """
    with explained():
        from training.crops.sources import Sources
        from training.learning.devices import start_worker
        from training.location.recipe import is_locator
        from training.recipes.config import load_recipe
        from training.runs import start
        from training.runs.folder import TransferOptions

        if is_locator(recipe):
            _train_locator(changes or [], data, folds, seed, name, runs, cache, device)
            return
        given = load_recipe(recipe, preset, changes or ())
        words = [f"cv{folds}"] * bool(folds) + ["all"] * all_patients + [str(seed)] + [_word(w) for w in (source, target, *(changes or [])) if w]
        named = name or "-".join([Path(recipe).stem, preset, *words])
        with start_worker(device) as worker:
            options = TransferOptions(given, source, target, seed, folds, runs, named, all_patients, checkpoint)
            folder = start.train(options, Sources.find(data, cache), worker)
            if worker.leads:
                for line in start.report(options, folder):
                    typer.echo(line)
                say(f"done: {folder}", "green")


def _train_locator(changes: list[str], data: list[Path], folds: int, seed: int, name: str, runs: Path, cache: Path, device: str) -> None:
    from training.errors import RecipeError
    from training.learning.devices import start_worker
    from training.location import run
    from training.location.annotated import FOLDS
    from training.location.recipe import NAME, load_locator_recipe

    if folds not in (0, FOLDS):
        raise RecipeError(f"The recipe {NAME} is trained with --folds {FOLDS} or without.")
    given = load_locator_recipe(changes)
    named = name or "-".join([NAME, *["folds"] * bool(folds), str(seed), *(_word(c) for c in changes)])
    samples = run.samples_of(data, cache / NAME)
    with start_worker(device) as worker:
        folder = run.train_all(given, samples, runs / named, worker, seed=seed, folds=bool(folds))
        if worker.leads:
            say(f"done: {folder}", "green")


def _word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._=]+", "_", text)
