"""Train the locator on all sources that are there, whole or without one fold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from rich.progress import track

from services.common.errors import DomainError
from training.architectures.locator import LocatorNetwork
from training.errors import TrainingError
from training.files.whole_files import write_json
from training.learning.checkpoints import load_network, save_network
from training.learning.devices import Worker
from training.learning.loop import LoopOptions, train
from training.location.annotated import FOLDS
from training.location.cache import read_samples, write_samples
from training.location.recipe import NAME, STEPS_PER_EPOCH, LocatorRecipe
from training.location.samples import Sample, make_sample
from training.location.sources import AML, COMPOSED, PHANTOMS, SOURCES
from training.location.task import LocatorTask
from training.location.windows import Draws

NETWORK_FILE: Final = "network.safetensors"


def samples_of(folders: Sequence[Path], cache: Path, wanted: Sequence[str] = tuple(SOURCES)) -> list[Sample]:
    """The samples of all sources whose folders are there; phantoms need none.

    Args:
        folders: of data sets, or folders that hold them.
        cache: where samples are kept; delete a file there to make its samples anew.
        wanted: sources.

    Raises:
        TrainingError: no data set is there, or an image cannot be read.
    """
    found = {name: folder for name in wanted if (folder := _folder_of(name, folders)) is not None}
    if not set(found) - {PHANTOMS}:
        raise TrainingError(f"None of {', '.join(n for n in SOURCES if n not in (PHANTOMS, COMPOSED))} is in {', '.join(map(str, folders))}.")
    return [sample for name, folder in found.items() for sample in _source(name, folder, cache)]


def _folder_of(source: str, folders: Sequence[Path]) -> Path | None:
    name = AML if source == COMPOSED else source
    if source == PHANTOMS:
        return Path()
    places = [place for folder in folders for place in (folder / name, folder) if place.name == name and place.is_dir()]
    return places[0] if places else None


def _source(name: str, folder: Path, cache: Path) -> list[Sample]:
    path = cache / f"{name}.safetensors"
    kept = read_samples(path) if path.exists() else None
    if kept is None:
        try:
            kept = [sample for image in track(SOURCES[name](folder), name) if (sample := make_sample(image)) is not None]
        except DomainError as error:
            raise TrainingError(f"{folder}: {error}") from error
        if not kept:
            raise TrainingError(f"{folder}: the scale of no image is seen.")
        write_samples(path, kept)
    return kept


def train_locator(recipe: LocatorRecipe, samples: Sequence[Sample], folder: Path, worker: Worker, *, seed: int = 0, fold: int | None = None) -> Path:
    """Train one network; stop it at any time, the same call goes on.

    Args:
        recipe: its switches.
        samples: of all sources.
        folder: of the run.
        worker: device and process.
        seed: of weights and windows.
        fold: that the network does not see; None to learn all.

    Returns:
        The folder, with ``network.safetensors``.

    Raises:
        TrainingError: nothing is left to learn, or the training was stopped.
    """
    learned = [s for s in samples if s.fold != fold and recipe.shares.get(s.source, 0.0) > 0]
    if not learned:
        raise TrainingError("No image is left to learn from.")
    counts = {name: sum(s.source == name for s in learned) for name in recipe.shares}
    about: dict[str, Any] = {"recipe": recipe.model_dump(), "seed": seed, "fold": fold, "images": counts}
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    network = LocatorNetwork(recipe.network.width)
    wanted = recipe.training
    draws = Draws(learned, recipe.shares, recipe.windows.changes, recipe.windows.side)
    epochs = max(1, wanted.steps // STEPS_PER_EPOCH)
    task = LocatorTask(
        network,
        draws,
        batch=wanted.batch,
        steps=min(wanted.steps, STEPS_PER_EPOCH),
        epochs=epochs,
        rate=wanted.rate,
        decay=wanted.weight_decay,
        seed=seed,
        worker=worker,
    )
    progress = train(task, LoopOptions(folder, repr(sorted(about.items())), _title(fold), seed, wanted.average_decay), worker)
    if worker.leads:
        network.load_state_dict(progress.average or network.state_dict())
        save_network(folder / NETWORK_FILE, network, about)
        write_json(folder / "run.json", {**about, "history": progress.history})
    return folder


def train_all(recipe: LocatorRecipe, samples: Sequence[Sample], folder: Path, worker: Worker, *, seed: int = 0, folds: bool = False) -> Path:
    """Train the network of all images, or with ``folds`` one network for each fold, which has not seen it."""
    if not folds:
        return train_locator(recipe, samples, folder, worker, seed=seed)
    for fold in range(FOLDS):
        train_locator(recipe, samples, folder / f"fold-{fold}", worker, seed=seed, fold=fold)
    return folder


def load_locator(folder: Path) -> LocatorNetwork:
    """The network of a finished run.

    Raises:
        TrainingError: there is none.
    """
    path = folder / NETWORK_FILE
    if not path.is_file():
        raise TrainingError(f"{path} is missing: train it first, `dl4all train {NAME} --data DATA`.")
    weights, about = load_network(path)
    network = LocatorNetwork(int(about["recipe"]["network"]["width"]))
    network.load_state_dict(weights)
    return network.eval()


def _title(fold: int | None) -> str:
    return NAME if fold is None else f"{NAME}, without fold {fold}"
