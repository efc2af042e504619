"""The folder of a run: its description, the files of its parts, and its identity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from training.architectures.build import build_network
from training.architectures.network import HEAD, MergedClasses, Network
from training.crops.packs import Pack
from training.datasets.splits import Split
from training.errors import ArrayFileError, RecipeError
from training.files.array_file import read_arrays, write_arrays
from training.files.whole_files import write_json
from training.learning.checkpoints import load_network
from training.learning.classification_task import Normaliser
from training.learning.devices import Worker, wait_for_all
from training.learning.injection import class_count, merged_classes
from training.recipes.config import Gates, Recipe

FINAL: Final = "final"
ALL_PATIENTS: Final = "all"
GATES: Final = "gates"
SPLIT: Final = "division"
"""Name of the digest of the split in the files of a run. It is an older name, kept so that old runs are recognised."""
RUN_FILE, NETWORK_FILE, PREDICTIONS_FILE = "run.json", "network.safetensors", "predictions.safetensors"
Made = TypeVar("Made")


@dataclass(frozen=True)
class TransferOptions:
    """One training of a recipe.

    Attributes:
        recipe: in its preset, with all changes.
        source: name of the source data set; empty to take the one that is there.
        target: name of the target data set; empty to take the one that is there.
        seed: of weights, order, augmentation and random splits.
        folds: folds of a grouped cross-validation over training and calibration groups; 0 for none.
        runs: folder of all runs.
        name: folder of this run below it.
        everyone: whether a cross-validation is over the test groups as well: a last estimate, by which nothing is chosen any more.
        checkpoint: the file that a recipe with ``start = "allnet"`` starts from; None for the others.
    """

    recipe: Recipe
    source: str
    target: str
    seed: int
    folds: int
    runs: Path
    name: str
    everyone: bool = False
    checkpoint: Path | None = None

    def __post_init__(self) -> None:
        if self.everyone and not (self.folds and self.recipe.split.by == "group"):
            raise RecipeError("Test patients take part in a cross-validation by patient only: give --folds, or leave --all-patients out.")

    @property
    def patients(self) -> dict[str, str]:
        """What a run notes of its patients; nothing where the test groups stay out."""
        return {"patients": ALL_PATIENTS} if self.everyone else {}


@dataclass(frozen=True)
class Predictions:
    """Predictions of a network for images that it did not learn from.

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


def leader_first(worker: Worker, make: Callable[[], Made]) -> Made:
    """Let the leading process make something that is kept on disk; the others then find it there."""
    if worker.leads:
        made = make()
        wait_for_all(worker)
        return made
    wait_for_all(worker)
    return make()


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


def describe(folder: Path, description: Mapping[str, Any], gates: Gates, worker: Worker) -> None:
    """Note what a run is in its folder, and by which gates it is judged when a release is built of it.

    The gates are no part of what a run is: with others it goes on, and keeps those that it began with.

    Raises:
        RecipeError: the folder holds another run.
    """
    path = folder / RUN_FILE
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        before.pop(GATES, None)
        if before != json.loads(json.dumps(description)):
            different = sorted(k for k in {*before, *description} if before.get(k) != json.loads(json.dumps(description)).get(k))
            raise RecipeError(f"{folder} holds a run with another {', '.join(different)}; give another --name, or delete it.")
    elif worker.leads:
        write_json(path, {**description, GATES: gates.model_dump()})
    wait_for_all(worker)


def vars_of(normaliser: Normaliser) -> list[list[float]]:
    """Mean and standard deviation, as files keep them."""
    return [list(normaliser.mean), list(normaliser.std)]


def split_digest(target: Pack, split: Split) -> str:
    """Digest of a split. Two splits of the same images have different ones."""
    words = "\n\n".join("\n".join(target.keys[indices]) for _, indices in split.named())
    return hashlib.sha256(words.encode()).hexdigest()


def identity(content: Mapping[str, Any]) -> str:
    """Digest of everything that decides a training. Two different trainings have different ones."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
