"""Out-of-fold scores of a cross-validated run, read from the folder of the run or from the small file kept of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training.crops.sources import Sources
from training.datasets.dataset import LabelledImage
from training.errors import ArrayFileError, RecipeError
from training.files.array_file import SUFFIX, read_arrays
from training.learning.checkpoints import load_network
from training.runs.folder import NETWORK_FILE, PREDICTIONS_FILE, RUN_FILE, Predictions

Double = NDArray[np.float64]
History = tuple[Mapping[str, float], ...]
KEPT_KIND: Final = "cross-validated scores 1"


@dataclass(frozen=True)
class Arm:
    """One cross-validated run.

    Attributes:
        system: recipe.
        seed: of the run.
        keys: of the cells, in order.
        margins: out-of-fold logits of blast minus those of normal, all folds pooled as they are.
        is_blast, patients: of the same cells.
        histories: learning curve of each fold.
        votes: out-of-fold share of blasts among the nearest training cells, 0..1, of the same cells; None where they were not kept.
    """

    system: str
    seed: int
    keys: NDArray[np.str_]
    margins: Double
    is_blast: NDArray[np.int64]
    patients: NDArray[np.str_]
    histories: tuple[History, ...]
    votes: Double | None = None


def read_arm(path: Path, sources: Sources | None = None) -> Arm:
    """Read a run, pooled over its folds, in the order of the keys.

    Args:
        path: folder of a run, or a file that ``training.evaluation.keep_run`` wrote.
        sources: the data, which tell what the cells of a kept file are.

    Raises:
        RecipeError: it is no finished cross-validation, or a kept file that these data do not explain.
        ArrayFileError: it is damaged.
    """
    return _read_kept(path, sources) if path.suffix == SUFFIX else _read_run(path)


def _read_run(folder: Path) -> Arm:
    about = run_description(folder)
    folds = fold_folders(folder, about)
    if not folds or not all((f / PREDICTIONS_FILE).exists() and (f / NETWORK_FILE).exists() for f in folds):
        raise RecipeError(f"{folder} is not a finished cross-validation; train it with --folds, to the end.")
    found = [Predictions.load(f / PREDICTIONS_FILE) for f in folds]
    keys = np.concatenate([p.keys for p in found])
    if len(np.unique(keys)) != len(keys):
        raise RecipeError(f"{folder}: a cell was predicted by two folds.")
    order = np.argsort(keys)
    margins, is_blast, patients = (np.concatenate(c)[order] for c in zip(*((p.margin, p.is_blast, p.groups) for p in found), strict=True))
    histories = tuple(tuple(load_network(f / NETWORK_FILE)[1]["history"]) for f in folds)
    return Arm(about["recipe"]["system"], about["seed"], keys[order], margins, is_blast.astype(np.int64), patients, histories)


def fold_folders(folder: Path, about: Mapping[str, Any]) -> list[Path]:
    """Folders of the folds of a cross-validated run."""
    return [folder / f"fold-{k}" for k in range(about.get("folds", 0))]


def run_description(folder: Path) -> dict[str, Any]:
    """The description of a run.

    Raises:
        RecipeError: the folder is not that of a run.
    """
    try:
        about: dict[str, Any] = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"{folder} is not the folder of a run: {error}") from error
    return about


def _read_kept(path: Path, sources: Sources | None) -> Arm:
    arrays, about = read_arrays(path)
    if about.get("kind") != KEPT_KIND:
        raise ArrayFileError(f"{path} holds no scores of a cross-validated run.")
    if sources is None:
        raise RecipeError(f"{path} holds no labels: name the folder of {about['target']} with --data.")
    cells = labelled_cells(sources, about["target"])
    if cells_digest(cells) != about["cells"]:
        raise RecipeError(f"{path} was made of other cells or labels than those of the {about['target']} that --data names.")
    predicted = np.flatnonzero(~np.isnan(arrays["margins"]))
    chosen = [cells[i] for i in predicted.tolist()]
    return Arm(
        system=about["recipe"]["system"],
        seed=about["seed"],
        keys=np.array([c.key for c in chosen]),
        margins=arrays["margins"][predicted].astype(np.float64),
        is_blast=np.array([c.is_blast for c in chosen], np.int64),
        patients=np.array([c.group for c in chosen]),
        histories=tuple(tuple(h) for h in about["histories"]),
        votes=arrays["votes"][predicted].astype(np.float64) if "votes" in arrays else None,
    )


def labelled_cells(sources: Sources, target: str) -> Sequence[LabelledImage]:
    """The unambiguous cells of a data set, by key."""
    return sorted((i for i in sources.dataset(target).images if i.is_blast is not None), key=lambda i: i.key)


def cells_digest(cells: Sequence[LabelledImage]) -> str:
    """Digest of the keys, groups and labels of cells."""
    return hashlib.sha256("\n".join(f"{c.key} {c.group} {c.is_blast}" for c in cells).encode()).hexdigest()
