"""Does pretraining help? Runs with and without it, compared cell by cell on the same patients, with paired intervals.

    python -m training.evaluation.comparison RUN... --curves PICTURE.svg

Every run is a grouped cross-validation (`dl4all train RECIPE --folds K`). Runs of one recipe are paired by seed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.checkpoints import load_network
from training.errors import RecipeError, TrainingError
from training.evaluation.metrics import Interval, Statistic, auc, bootstrap_of, sensitivity_at_specificity
from training.transfer import NETWORK_FILE, PREDICTIONS_FILE, RUN_FILE, Predictions

Double = NDArray[np.float64]


@dataclass(frozen=True)
class Arm:
    """One cross-validated run.

    Attributes:
        system: recipe.
        pretrained: whether it started from a source.
        seed: of the run.
        keys: of the cells, in order.
        margins: out-of-fold logits of blast minus those of normal, all folds pooled as they are.
        is_blast, patients: of the same cells.
        histories: learning curve of each fold.
    """

    system: str
    pretrained: bool
    seed: int
    keys: NDArray[np.str_]
    margins: Double
    is_blast: NDArray[np.int64]
    patients: NDArray[np.str_]
    histories: tuple[tuple[dict[str, float], ...], ...]


def read_arm(folder: Path) -> Arm:
    """Pool the out-of-fold predictions of a run, in the order of the keys.

    Raises:
        RecipeError: it is no cross-validation, or a fold is not finished.
    """
    try:
        about = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"{folder} is not the folder of a run: {error}") from error
    folds = [folder / f"fold-{k}" for k in range(about.get("folds", 0))]
    if not folds or not all((f / PREDICTIONS_FILE).exists() and (f / NETWORK_FILE).exists() for f in folds):
        raise RecipeError(f"{folder} is not a finished cross-validation; train it with --folds, to the end.")
    found = [Predictions.load(f / PREDICTIONS_FILE) for f in folds]
    keys = np.concatenate([p.keys for p in found])
    if len(np.unique(keys)) != len(keys):
        raise RecipeError(f"{folder}: a cell was predicted by two folds.")
    order = np.argsort(keys)
    margins, is_blast, patients = (np.concatenate(c)[order] for c in zip(*((p.margin, p.is_blast, p.groups) for p in found), strict=True))
    histories = tuple(tuple(load_network(f / NETWORK_FILE)[1]["history"]) for f in folds)
    return Arm(about["recipe"]["system"], "source" in about, about["seed"], keys[order], margins, is_blast.astype(np.int64), patients, histories)


def paired(pretrained: Sequence[Arm], scratch: Sequence[Arm]) -> dict[str, tuple[Interval, Interval, Interval]]:
    """Mean over seeds with, without, and of the difference, for each figure; the same patients are drawn for all.

    Raises:
        RecipeError: the arms are not of the same seeds and cells.
    """
    if [a.seed for a in pretrained] != [a.seed for a in scratch] or not pretrained:
        raise RecipeError("The runs of the two sides are not of the same seeds.")
    first = pretrained[0]
    for arm in (*pretrained, *scratch):
        if not np.array_equal(arm.keys, first.keys):
            raise RecipeError("The runs did not predict the same cells.")

    def figures(statistic: Statistic) -> tuple[Interval, Interval, Interval]:
        def mean(arms: Sequence[Arm], weights: Double) -> float:
            return float(np.mean([statistic(a.margins, a.is_blast, weights) for a in arms]))

        return (
            bootstrap_of(lambda w: mean(pretrained, w), first.patients),
            bootstrap_of(lambda w: mean(scratch, w), first.patients),
            bootstrap_of(lambda w: mean(pretrained, w) - mean(scratch, w), first.patients),
        )

    return {"AUC": figures(auc), "sensitivity at 95 % specificity": figures(sensitivity_at_specificity)}


def draw_curves(arms: Iterable[Arm], path: Path) -> None:
    """Draw the training loss of every fold by epoch, one panel per recipe, as SVG."""
    from matplotlib.figure import Figure

    every = list(arms)
    systems = sorted({a.system for a in every})
    figure = Figure(figsize=(4.8 * len(systems), 3.4), layout="constrained")
    axes = figure.subplots(1, len(systems), squeeze=False)[0]
    for axis, system in zip(axes, systems, strict=True):
        for arm in (a for a in every if a.system == system):
            for history in arm.histories:
                colour = "#1f6fb2" if arm.pretrained else "#c4622d"
                axis.plot([h["epoch"] for h in history], [h["loss"] for h in history], color=colour, alpha=0.45, linewidth=1)
        for label, colour in (("pretrained on tissue", "#1f6fb2"), ("from scratch", "#c4622d")):
            axis.plot([], [], color=colour, label=label)
        axis.set(title=system, xlabel="epoch", ylabel="training loss")
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def main() -> None:
    """Print the table, draw the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of cross-validated runs")
    parser.add_argument("--curves", type=Path, help="SVG file for the learning curves")
    given = parser.parse_args()
    try:
        arms = sorted((read_arm(folder) for folder in given.runs), key=lambda a: (a.system, a.seed))
        for arm in arms:
            print(f"{arm.system}, seed {arm.seed}, {'pretrained' if arm.pretrained else 'from scratch'}: AUC {auc(arm.margins, arm.is_blast):.4f}")
        print("| recipe | figure | pretrained | from scratch | difference |\n|---|---|---|---|---|")
        for system in sorted({a.system for a in arms}):
            of_system = [a for a in arms if a.system == system]
            for name, values in paired([a for a in of_system if a.pretrained], [a for a in of_system if not a.pretrained]).items():
                print(f"| {system} | {name} | {' | '.join(str(v) for v in values)} |")
    except TrainingError as error:
        raise SystemExit(f"failed: {error}") from error
    if given.curves:
        draw_curves(arms, given.curves)


if __name__ == "__main__":
    main()
