"""What a cross-validated run said of cells that it did not learn from, as a folder of a run or as the small file that is kept of it.

    python -m training.evaluation.arms RUN... --data DATA --out docs/runs [--votes]

A kept file holds scores and learning curves, no image, name or label of a cell: whoever holds the data can print every comparison again in seconds.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from services.common.memory import keep_freed_memory
from training.array_file import SUFFIX, read_arrays, write_arrays
from training.checkpoints import load_network
from training.datasets.dataset import LabelledImage
from training.errors import ArrayFileError, RecipeError
from training.evaluation.command import explained
from training.evaluation.fold_votes import fold_votes
from training.prepared import Sources
from training.transfer import NETWORK_FILE, PREDICTIONS_FILE, RUN_FILE, Predictions

Double = NDArray[np.float64]
History = tuple[Mapping[str, float], ...]
_KIND: Final = "cross-validated scores 1"
_KEPT: Final = ("recipe", "source", "target", "seed", "folds", "patients")
_CURVE: Final = ("epoch", "loss")


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
        path: folder of a run, or a file that ``keep`` wrote.
        sources: the data, which tell what the cells of a kept file are.

    Raises:
        RecipeError: it is no finished cross-validation, or a kept file that these data do not explain.
        ArrayFileError: it is damaged.
    """
    return _read_kept(path, sources) if path.suffix == SUFFIX else _read_run(path)


def keep(run: Path, sources: Sources, out: Path, *, with_votes: bool = False) -> Path:
    """Keep what a cross-validated run said, in ``out`` under the name of the run.

    Args:
        run: folder of the run.
        sources: the data that it predicted; its crops as well, where votes are wanted.
        out: folder for the file.
        with_votes: whether to keep the votes of the nearest training cells too, which every fold's network is run for.

    Returns:
        The file.

    Raises:
        RecipeError: it is no finished cross-validation, or not one of these data.
    """
    arm, about = _read_run(run), _about(run)
    cells = _cells(sources, about["target"])
    keys = [c.key for c in cells]
    place = {key: i for i, key in enumerate(keys)}
    if not set(arm.keys) <= set(keys):
        raise RecipeError(f"{run} predicted cells that {about['target']} does not hold.")
    rows = [place[key] for key in arm.keys]
    if [(cells[i].group, cells[i].is_blast) for i in rows] != list(zip(arm.patients.tolist(), arm.is_blast.tolist(), strict=True)):
        raise RecipeError(f"{run} knew other labels or patients than those of the {about['target']} that --data names.")
    scores = {"margins": arm.margins}
    if with_votes:
        votes = fold_votes(_folds(run, about), about["target"], sources)
        scores["votes"] = np.array([votes[key] for key in arm.keys])
    arrays = {name: np.full(len(keys), np.nan, np.float16) for name in scores}
    for name, values in scores.items():
        arrays[name][rows] = values
    kept: dict[str, object] = {name: about[name] for name in _KEPT if name in about}
    curves = [[{name: round(float(row[name]), 5) for name in _CURVE} for row in history] for history in arm.histories]
    path = out / (run.name + SUFFIX)
    write_arrays(path, arrays, {"kind": _KIND, **kept, "cells": _digest(cells), "histories": curves})
    return path


def _read_run(folder: Path) -> Arm:
    about = _about(folder)
    folds = _folds(folder, about)
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


def _folds(folder: Path, about: Mapping[str, Any]) -> list[Path]:
    return [folder / f"fold-{k}" for k in range(about.get("folds", 0))]


def _about(folder: Path) -> dict[str, Any]:
    try:
        about: dict[str, Any] = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"{folder} is not the folder of a run: {error}") from error
    return about


def _read_kept(path: Path, sources: Sources | None) -> Arm:
    arrays, about = read_arrays(path)
    if about.get("kind") != _KIND:
        raise ArrayFileError(f"{path} holds no scores of a cross-validated run.")
    if sources is None:
        raise RecipeError(f"{path} holds no labels: name the folder of {about['target']} with --data.")
    cells = _cells(sources, about["target"])
    if _digest(cells) != about["cells"]:
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


def _cells(sources: Sources, target: str) -> Sequence[LabelledImage]:
    """The unambiguous cells of a data set, by key."""
    return sorted((i for i in sources.dataset(target).images if i.is_blast is not None), key=lambda i: i.key)


def _digest(cells: Sequence[LabelledImage]) -> str:
    return hashlib.sha256("\n".join(f"{c.key} {c.group} {c.is_blast}" for c in cells).encode()).hexdigest()


@explained
def main() -> None:
    """Keep runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of cross-validated runs")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folder of the data that they predicted")
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    parser.add_argument("--votes", action="store_true", help="keep the votes of the nearest training cells as well; takes a minute or two per run")
    parser.add_argument("--cache", type=Path, default=Path("build/packs"), help="folder where prepared crops are kept (default: %(default)s)")
    given = parser.parse_args()
    keep_freed_memory(of_any_size=True)
    sources = Sources.find(given.data, given.cache)
    for run in given.runs:
        print(keep(run, sources, given.out, with_votes=given.votes))


if __name__ == "__main__":
    main()
