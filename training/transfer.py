"""Pretrain on a source, fine-tune on a target: what HistoTNet, ALLNet and the baseline share. Resumable at every point."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from training.architectures.build import build_network
from training.architectures.network import HEAD, MergedClasses, Network
from training.array_file import read_arrays, write_arrays
from training.checkpoints import Progress, Weights, load_network, save_network
from training.classification import ClassificationTask, Normaliser, Samples, fit_normaliser, logits_of, outputs_of
from training.datasets.all_idb import ALL_IDB2, ALL_IDB_PATCHES
from training.datasets.cnmc import CNMC
from training.datasets.dataset import ImageKind, Subset
from training.datasets.own_cells import OWN_CELLS
from training.datasets.single_cells import AML_CELLS
from training.datasets.tissue import ADP, ALL_LEVELS, LC25000_TILES, heads_of
from training.devices import Place, wait_for_all
from training.errors import ArrayFileError, DatasetError, RecipeError
from training.injection import class_count, inject_nothing, merged_classes, split_blasts
from training.loop import LoopOptions, train
from training.packs import Pack
from training.preparation import NOTHING
from training.prepared import Sources, focus_of
from training.recipes.config import Input, InputKind, Pretraining, Recipe, Selection, Stage, as_json
from training.splits import Parts, greedy_folds, greedy_group_folds, grouped_folds, refuse_leak, require_classes, stratified_by_image
from training.whole_files import write_json

CLASSES: Final = ("normal", "blast")
FINAL: Final = "final"
ALL_PATIENTS: Final = "all"
WARM_UP, UNSPLIT = "warm-up", "unsplit"
RUN_FILE, NETWORK_FILE, PREDICTIONS_FILE = "run.json", "network.safetensors", "predictions.safetensors"
SOURCES: Final = (ADP, LC25000_TILES)
TARGETS: Final = (AML_CELLS, ALL_IDB2, CNMC, OWN_CELLS)
_SOURCE_FOLDS: Final = 10
Made = TypeVar("Made")


@dataclass(frozen=True)
class TransferOptions:
    """One training of a recipe.

    Attributes:
        recipe: in its preset, with all changes.
        source: name of the source data set; empty to take the one that is there.
        target: name of the target data set; empty to take the one that is there.
        seed: of weights, order, augmentation and random divisions.
        folds: folds of a grouped cross-validation over training and calibration groups; 0 for none.
        runs: folder of all runs.
        name: folder of this run below it.
        everyone: whether a cross-validation is over the test groups as well: a last estimate, by which nothing is chosen any more.
    """

    recipe: Recipe
    source: str
    target: str
    seed: int
    folds: int
    runs: Path
    name: str
    everyone: bool = False

    def __post_init__(self) -> None:
        if self.everyone and not (self.folds and self.recipe.division.by == "group"):
            raise RecipeError("Test patients take part in a cross-validation by patient only: give --folds, or leave --all-patients out.")

    @property
    def patients(self) -> dict[str, str]:
        """What a run notes of its patients; nothing where the test groups stay out."""
        return {"patients": ALL_PATIENTS} if self.everyone else {}


@dataclass(frozen=True)
class Predictions:
    """What a network said of images that it did not learn from.

    Attributes:
        keys, groups: str (N,).
        is_blast: int8 (N,).
        logits: float32 (N, 2), or (N, 3) where the class nothing was injected.
        part: ``validation`` or ``test``, str (N,).
    """

    keys: NDArray[np.str_]
    groups: NDArray[np.str_]
    is_blast: NDArray[np.int8]
    logits: NDArray[np.float32]
    part: NDArray[np.str_]

    @property
    def margin(self) -> NDArray[np.float64]:
        """Logit of blast minus logit of normal, float64 (N,)."""
        return (self.logits[:, 1] - self.logits[:, 0]).astype(np.float64)

    def save(self, path: Path) -> None:
        """Write them to one file."""
        words = {name: getattr(self, name).tolist() for name in ("keys", "groups", "part")}
        write_arrays(path, {"is_blast": self.is_blast, "logits": self.logits}, {"kind": "predictions 1", **words})

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Read what ``save`` wrote."""
        arrays, about = read_arrays(path)
        if about.get("kind") != "predictions 1":
            raise ArrayFileError(f"{path} holds no predictions.")
        words = {name: np.array(about[name], dtype=np.str_) for name in ("keys", "groups", "part")}
        return cls(is_blast=arrays["is_blast"], logits=arrays["logits"], **words)


@dataclass(frozen=True)
class Trained:
    """A finished part of a run.

    Attributes:
        folder: where it lies.
        network: in evaluation mode, on the CPU, as it learned.
        normaliser: what it subtracts and divides by.
        about: what the network file says of it.
    """

    folder: Path
    network: Network
    normaliser: Normaliser
    about: Mapping[str, Any]

    @property
    def judging(self) -> nn.Module:
        """The network as it judges: says normal, blast and, where it was injected, nothing."""
        return as_judged(self.network, Recipe.model_validate(self.about["recipe"])).eval()


def run(options: TransferOptions, sources: Sources, at: Place) -> Path:
    """Train all parts of a run; finished ones are not done again.

    Returns:
        The folder of the run: ``run.json`` and one folder per part with its network and predictions.

    Raises:
        TrainingError: the data, the options or a file are at fault; what is finished stays.
    """
    recipe = options.recipe
    target = leader_first(at, lambda: cell_pack(sources, options.target, recipe))
    parts = divisions(target, options)
    folder = options.runs / options.name
    description = {
        "recipe": as_json(recipe),
        "target": target.header.dataset,
        "target_digest": target.digest(),
        "seed": options.seed,
        "folds": options.folds,
        **options.patients,
    }
    pretrained: Weights | None = None
    source_of: dict[str, Any] = {}
    if recipe.pretraining is not None and recipe.pretraining.enabled:
        pretrained, source_of = pretrained_weights(options, sources, at)
        description |= source_of
    nothing = leader_first(at, lambda: crops_without_cells(sources, target, recipe))
    if nothing is not None:
        description["nothing_digest"] = nothing.digest()
    describe(folder, description, at)
    for name, division in parts.items():
        part = {**description, "part": name, "division": division_digest(target, division)}
        _fine_tune(options, target, nothing, division, folder / name, pretrained, part, at)
    return folder


def crops_without_cells(sources: Sources, target: Pack, recipe: Recipe) -> Pack | None:
    """Crops in whose middle no nucleated cell is, made as those of the cells; None where the recipe wants none."""
    injection, stage = recipe.injection, recipe.fine_tuning
    if not injection.nothing:
        return None
    if injection.source == "places":
        return sources.pack(target.header.dataset, stage.input.model_copy(update={"subject": NOTHING}), focus=focus_of(target))
    pack = sources.pack(ALL_IDB_PATCHES, Input(kind=InputKind.CENTER_CROP, side=stage.input.side))
    return pack.select(pack.labels.sum(axis=1) == 0)


def cell_pack(sources: Sources, name: str, recipe: Recipe) -> Pack:
    """Crops of the target that are blast or normal; ambiguous cells are left out."""
    pack = sources.pack(choose(sources, name, TARGETS, "target", "--target"), recipe.fine_tuning.input)
    if pack.header.kind is not ImageKind.CELL:
        raise DatasetError(f"{pack.header.dataset} shows no single cells.")
    return pack.select(pack.is_blast >= 0)


def leader_first(at: Place, make: Callable[[], Made]) -> Made:
    """Let the leading process make something that is kept on disk; the others then find it there."""
    if at.leads:
        made = make()
        wait_for_all(at)
        return made
    wait_for_all(at)
    return make()


def choose(sources: Sources, name: str, known: tuple[str, ...], role: str, option: str) -> str:
    """The data set for a role: the one that is asked for, or the only one that is there.

    Raises:
        DatasetError: none or several are there.
    """
    if name:
        return name
    there = [n for n in known if n in sources.names]
    if len(there) != 1:
        raise DatasetError(
            f"{'Several data sets' if there else 'No data set'} for the {role}: {', '.join(there) or ', '.join(known)}; choose with {option}."
        )
    return there[0]


def divisions(target: Pack, options: TransferOptions) -> dict[str, Parts]:
    """The parts of a run by name, checked for leaks and missing classes.

    Raises:
        SplitError: a division leaks or lacks a class.
    """
    division = options.recipe.division
    one_hot = np.stack([target.is_blast == 0, target.is_blast == 1], axis=1).astype(np.int8)
    made: dict[str, Parts] = {}
    if division.by == "image":
        for r in range(division.repetitions):
            made[f"repetition-{r}"] = stratified_by_image(target.is_blast.astype(np.int64), division.shares, options.seed * 1000 + r)
    else:
        training, calibration = target.in_subset(Subset.TRAIN), target.in_subset(Subset.CALIBRATION)
        check_test_subset(target)
        if options.folds:
            test = target.in_subset(Subset.TEST) & options.everyone
            development = np.flatnonzero(training | calibration | test)
            fold = grouped_folds(target.groups[development], target.is_blast[development] == 1, options.folds, options.seed)
            for k in range(options.folds):
                made[f"fold-{k}"] = Parts(development[fold != k], development[fold == k], np.zeros(0, np.int64))
        else:
            made[FINAL] = Parts(np.flatnonzero(training), np.flatnonzero(calibration), np.zeros(0, np.int64))
        for parts in made.values():
            refuse_leak(parts, target.groups, target.header.grouped_by, target.sha256)
    for parts in made.values():
        require_classes(one_hot, CLASSES, parts)
    return made


def check_test_subset(target: Pack) -> None:
    """Refuse test images that share a group or a file with the others, or that lack a class; all are of cells that are not ambiguous.

    Raises:
        SplitError: they leak or lack a class; a data set without test images passes.
    """
    test = np.flatnonzero(target.in_subset(Subset.TEST))
    if len(test):
        parts = Parts(np.flatnonzero(~target.in_subset(Subset.TEST)), np.zeros(0, np.int64), test)
        refuse_leak(parts, target.groups, target.header.grouped_by, target.sha256)
        require_classes(np.stack([target.is_blast == 0, target.is_blast == 1], axis=1).astype(np.int8), CLASSES, parts)


def load_trained(folder: Path) -> Trained:
    """Load a finished part of a run.

    Raises:
        ArrayFileError: there is none, or it is damaged.
    """
    weights, about = load_network(folder / NETWORK_FILE)
    recipe = Recipe.model_validate(about["recipe"])
    network = build_network(recipe.network, {HEAD: class_count(recipe.injection)}, recipe.fine_tuning.input.side)
    network.load_state_dict(weights)
    mean, std = about["normaliser"]
    return Trained(folder, network.eval(), Normaliser(tuple(mean), tuple(std)), about)


def as_judged(network: Network, recipe: Recipe) -> nn.Module:
    """A trained network as it judges: clusters of blasts are blasts."""
    return MergedClasses(network, merged_classes(recipe.injection)) if recipe.injection.clusters > 1 else network


def describe(folder: Path, description: Mapping[str, Any], at: Place) -> None:
    """Note what a run is in its folder.

    Raises:
        RecipeError: the folder holds another run.
    """
    path = folder / RUN_FILE
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before != json.loads(json.dumps(description)):
            different = sorted(k for k in {*before, *description} if before.get(k) != json.loads(json.dumps(description)).get(k))
            raise RecipeError(f"{folder} holds a run with another {', '.join(different)}; give another --name, or delete it.")
    elif at.leads:
        write_json(path, description)
    wait_for_all(at)


def pretrained_weights(options: TransferOptions, sources: Sources, at: Place) -> tuple[Weights, dict[str, Any]]:
    """Weights of the recipe's network trained on the source, now or before, and what a run notes of the source."""
    recipe, stage = options.recipe, options.recipe.pretraining
    assert stage is not None
    name = choose(sources, options.source, SOURCES, "source", "--source")
    pack = leader_first(at, lambda: sources.pack(name, stage.input, stage.level))
    digest = identity({"network": as_json(recipe)["network"], "stage": as_json(recipe)["pretraining"], "seed": options.seed, "data": pack.digest()})
    folder = options.runs / f"source-{digest[:16]}"
    described = {"source": pack.header.dataset, "source_digest": pack.digest()}
    if not (folder / NETWORK_FILE).exists():
        parts = source_division(pack, stage)
        samples = Samples(pack.pixels, pack.labels, pack.labels.argmax(axis=1), pack.groups)
        torch.manual_seed(options.seed)
        network = build_network(recipe.network, {HEAD: len(pack.header.classes)}, stage.input.side)
        title = f"{recipe.system}, source {pack.header.dataset}, seed {options.seed}"
        heads = heads_of(pack.header.classes) if stage.level == ALL_LEVELS else ()
        how = Fit(stage, folder, digest, title, options.seed, pack.header.multi_label, heads)
        normaliser, figures = fit(network, samples, parts, how, at)
        if at.leads:
            save_network(folder / NETWORK_FILE, network, {**described, "recipe": as_json(recipe), "normaliser": vars_of(normaliser), **figures})
        wait_for_all(at)
    weights, _ = load_network(folder / NETWORK_FILE)
    return weights, {**described, "source_run": folder.name}


def source_division(pack: Pack, stage: Pretraining) -> Parts:
    """Nine folds of ten train, one validates; in the papers' way (by image) one more is left out as test.

    Raises:
        SplitError: the division leaks by slide or tile, or a class is missing from the training part.
    """
    nothing = np.zeros(0, np.int64)
    if stage.folds == "by_image":
        fold = greedy_folds(pack.labels, _SOURCE_FOLDS)
        return Parts(np.flatnonzero(fold < 8), np.flatnonzero(fold == 8), np.flatnonzero(fold == 9))
    fold = greedy_group_folds(pack.labels, pack.groups, _SOURCE_FOLDS)
    parts = Parts(np.flatnonzero(fold != 9), np.flatnonzero(fold == 9), nothing)
    refuse_leak(parts, pack.groups, pack.header.grouped_by, pack.sha256)
    if not pack.header.multi_label:
        require_classes(pack.labels, pack.header.classes, parts)
    return parts


def _fine_tune(
    options: TransferOptions,
    target: Pack,
    nothing: Pack | None,
    parts: Parts,
    folder: Path,
    pretrained: Weights | None,
    description: Mapping[str, Any],
    at: Place,
) -> None:
    if (folder / NETWORK_FILE).exists() and (folder / PREDICTIONS_FILE).exists():
        return
    recipe, stage = options.recipe, options.recipe.fine_tuning
    labels = np.stack([target.is_blast == 0, target.is_blast == 1], axis=1).astype(np.int8)
    samples, trained_on = Samples(target.pixels, labels, target.labels.argmax(axis=1), target.groups), parts
    if nothing is not None:
        allowed = _may_be_learned(nothing, target, parts.train, recipe)
        samples, trained_on = inject_nothing(samples, parts, nothing, allowed, recipe.injection.nothing, options.seed)
    begun = "pretrained" if pretrained is not None else "from scratch"
    title = f"{recipe.system}, {description['part']}, {begun}, seed {options.seed}"
    how = Fit(stage, folder, identity(description), title, options.seed, multi_label=False, merged=merged_classes(recipe.injection))
    if recipe.injection.clusters > 1:
        unsplit = Fit(
            stage, folder / UNSPLIT, identity({**description, "part": UNSPLIT}), f"{title}, blasts unsplit", options.seed, multi_label=False
        )
        network, normaliser, _ = _trained(recipe, samples, trained_on, unsplit, pretrained, at)
        embeddings = [o.embedding for o in outputs_of(network, samples.pixels[trained_on.train], normaliser, at.device)]
        samples = split_blasts(samples, trained_on.train, np.concatenate(embeddings), recipe.injection.clusters, options.seed)
    network, normaliser, figures = _trained(recipe, samples, trained_on, how, pretrained, at)
    if at.leads:
        predict(as_judged(network, recipe), normaliser, target, parts, at).save(folder / PREDICTIONS_FILE)
        save_network(folder / NETWORK_FILE, network, {**description, "normaliser": vars_of(normaliser), **figures})
    wait_for_all(at)


def _may_be_learned(nothing: Pack, target: Pack, training: NDArray[np.int64], recipe: Recipe) -> NDArray[np.bool_]:
    """Which crops without a cell a division may learn from: places of its training groups, or images where it is by image; all patches."""
    if recipe.injection.source == "patches":
        return np.ones(len(nothing), np.bool_)
    if recipe.division.by == "image":
        return np.isin(nothing.keys, target.keys[training])
    return np.isin(nothing.groups, target.groups[training])


def _trained(
    recipe: Recipe, samples: Samples, parts: Parts, how: Fit, pretrained: Weights | None, at: Place
) -> tuple[Network, Normaliser, dict[str, Any]]:
    """A network of the recipe, trained on samples with any number of classes."""
    torch.manual_seed(how.seed)
    network = build_network(recipe.network, {HEAD: samples.labels.shape[1]}, recipe.fine_tuning.input.side)
    if pretrained is not None:
        start_from(network, pretrained)
    if recipe.warm_up is not None:
        warm_up(network, recipe.warm_up, samples, parts, how, at)
    return network, *fit(network, samples, parts, how, at)


def start_from(network: nn.Module, weights: Weights) -> None:
    """Take over pretrained weights, all but those of the heads; fixed kernels included.

    Raises:
        ArrayFileError: the weights are of another network.
    """
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("heads.")}
    missing, unexpected = network.load_state_dict(kept, strict=False)
    if unexpected or any(not name.startswith("heads.") for name in missing):
        raise ArrayFileError("The pretrained weights are of another network.")


@dataclass(frozen=True)
class Fit:
    """One training of one network: how, where, and what it is called; ``heads`` and ``merged`` as ``ClassificationTask`` takes them."""

    stage: Stage
    folder: Path
    identity: str
    title: str
    seed: int
    multi_label: bool
    heads: tuple[slice, ...] = ()
    merged: tuple[tuple[int, ...], ...] = ()


def fit(network: nn.Module, samples: Samples, parts: Parts, how: Fit, at: Place) -> tuple[Normaliser, dict[str, Any]]:
    """Train a network and leave it with the weights that the stage keeps; returns its normaliser and what the training was."""
    stage = how.stage
    seen = np.concatenate([parts.train, parts.validation]) if stage.statistics_from_validation else parts.train
    normaliser = fit_normaliser(stage.normalisation, samples.pixels[seen])
    task = ClassificationTask(
        network,
        stage,
        samples.select(parts.train),
        samples.select(parts.validation),
        normaliser,
        at,
        multi_label=how.multi_label,
        seed=how.seed,
        weights_from=samples.labels[seen],
        heads=how.heads,
        merged=how.merged,
    )
    began = time.monotonic()
    progress = train(task, LoopOptions(how.folder, how.identity, how.title, how.seed, stage.average_decay, stage.precision), at)
    keep_selected(network, stage, progress)
    network.eval()
    return normaliser, {"history": progress.history, "steps": progress.step, "last_session_seconds": round(time.monotonic() - began, 1)}


def keep_selected(network: nn.Module, stage: Stage, progress: Progress) -> None:
    """Give a network, as it was trained, the weights that its stage keeps."""
    if stage.selection is not Selection.LAST:
        network.load_state_dict(progress.best)
    elif progress.average:
        network.load_state_dict(progress.average)


def warm_up(network: Network, stage: Stage, samples: Samples, parts: Parts, then: Fit, at: Place) -> None:
    """Train the heads of a network alone, before the training ``then`` of all of it, in a folder below that one's."""
    described = identity({"before": then.identity, "stage": WARM_UP})
    with heads_alone(network):
        fit(network, samples, parts, Fit(stage, then.folder / WARM_UP, described, f"{then.title}, heads", then.seed, then.multi_label), at)


@contextmanager
def heads_alone(network: Network) -> Iterator[None]:
    """Hold all weights but those of the heads; the statistics of the batch normalisation move all the same."""
    held = [p for name, p in network.named_parameters() if p.requires_grad and not name.startswith("heads.")]
    for parameter in held:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in held:
            parameter.requires_grad_(True)


def predict(network: nn.Module, normaliser: Normaliser, target: Pack, parts: Parts, at: Place) -> Predictions:
    """What a network says of the validation and test images of a part."""
    chosen = np.concatenate([parts.validation, parts.test])
    names = np.array(["validation"] * len(parts.validation) + ["test"] * len(parts.test))
    logits = logits_of(network, target.pixels[chosen], normaliser, at.device)
    return Predictions(target.keys[chosen], target.groups[chosen], target.is_blast[chosen], logits, names)


def vars_of(normaliser: Normaliser) -> list[list[float]]:
    """Mean and standard deviation, as files keep them."""
    return [list(normaliser.mean), list(normaliser.std)]


def division_digest(target: Pack, parts: Parts) -> str:
    """What tells two divisions of the same images apart."""
    words = "\n\n".join("\n".join(target.keys[indices]) for _, indices in parts.named())
    return hashlib.sha256(words.encode()).hexdigest()


def identity(content: Mapping[str, Any]) -> str:
    """What tells two trainings apart, of all that decides them."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
