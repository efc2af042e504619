"""Cross-validated runs of any recipes on the same patients, each side against the first, with paired intervals by patient.

    dl4all study comparison 'DSS=build/runs/dss-cv-0,build/runs/dss-cv-1' 'ALLNet=build/runs/allnet-cv-*'
    dl4all study comparison --data DATA 'DSS=docs/runs/dss-?.safetensors' 'without triplets=docs/runs/dss-without-triplets-?.safetensors'

Every NAME=RUN,RUN,... is a side: grouped cross-validations (`dl4all train RECIPE --folds K`), or the files kept of them
(`dl4all study keep-run`), that differ by their seeds; RUN may have wildcards. The others are compared with the first in the seeds that both have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from glob import glob, has_magic
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.command import explained, program_parser
from training.crops.sources import Sources
from training.errors import RecipeError
from training.evaluation.run_pictures import draw_auc_by_patient, draw_curves
from training.metrics.by_patient import Interval, Statistic, auc, balanced_accuracy, bootstrap_of, sensitivity_at_specificity
from training.runs.arms import Arm, read_arm

Double = NDArray[np.float64]
FIGURES: Mapping[str, Statistic] = {
    "AUC": auc,
    "balanced accuracy": lambda margins, labels, weights: balanced_accuracy(margins, labels, weights, threshold=0.0),
    "sensitivity at 95 % specificity": sensitivity_at_specificity,
}


@dataclass(frozen=True)
class Row:
    """Figures of a side: seeds, then by figure its mean over them, and its difference from the first side in the seeds that both have."""

    name: str
    seeds: tuple[int, ...]
    figures: Mapping[str, Interval]
    differences: Mapping[str, Interval]


def table(sides: Mapping[str, Sequence[Arm]]) -> list[Row]:
    """Compare sides by the same cells; the same patients are drawn for all.

    Args:
        sides: runs by name; the first side is what the others are compared with.

    Raises:
        RecipeError: a side is empty or has a seed twice, runs are not of the same cells, or a side shares no seed with the first.
    """
    (reference_name, reference), *_ = sides.items()
    if not all(sides.values()):
        raise RecipeError("Every side needs a run.")
    first = reference[0]
    for name, arms in sides.items():
        seeds = [a.seed for a in arms]
        if len(set(seeds)) < len(seeds):
            raise RecipeError(f"{name} has runs of one seed twice.")
        if not all(_same_cells(a, first) for a in arms):
            raise RecipeError(f"The runs of {name} did not predict the same cells as those of {reference_name}, or knew other labels or patients.")
    return [_row(name, arms, () if name == reference_name else reference) for name, arms in sides.items()]


def _same_cells(arm: Arm, other: Arm) -> bool:
    return all(np.array_equal(getattr(arm, part), getattr(other, part)) for part in ("keys", "is_blast", "patients"))


def _row(name: str, arms: Sequence[Arm], reference: Sequence[Arm]) -> Row:
    patients = arms[0].patients
    figures = {figure: bootstrap_of(partial(_mean, statistic, arms), patients) for figure, statistic in FIGURES.items()}
    seeds = tuple(sorted(a.seed for a in arms))
    if not reference:
        return Row(name, seeds, figures, {})
    both = {a.seed for a in arms} & {a.seed for a in reference}
    if not both:
        raise RecipeError(f"{name} has no seed that the first side has as well: nothing can be paired.")
    own, other = ([a for a in side if a.seed in both] for side in (arms, reference))
    differences = {figure: bootstrap_of(partial(_difference, statistic, own, other), patients) for figure, statistic in FIGURES.items()}
    return Row(name, seeds, figures, differences)


def _mean(statistic: Statistic, arms: Sequence[Arm], weights: Double) -> float:
    return float(np.mean([statistic(a.margins, a.is_blast, weights) for a in arms]))


def _difference(statistic: Statistic, own: Sequence[Arm], other: Sequence[Arm], weights: Double) -> float:
    return _mean(statistic, own, weights) - _mean(statistic, other, weights)


def markdown(rows: Sequence[Row]) -> str:
    """The table."""
    lines = [
        f"| | seeds | {' | '.join(f'{figure} | against {rows[0].name}' for figure in FIGURES)} |",
        "|---|---|" + "---|---|" * len(FIGURES),
    ]
    for row in rows:
        cells = [f"{row.figures[figure]} | {signed(row.differences.get(figure))}" for figure in FIGURES]
        lines.append(f"| {row.name} | {', '.join(map(str, row.seeds))} | {' | '.join(cells)} |")
    return "\n".join(lines)


def signed(difference: Interval | None) -> str:
    """A difference with its sign; nothing where there is none."""
    return "" if difference is None else f"{difference.value:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"


def by_vote(arm: Arm) -> Arm:
    """A run as its embedding judges: the vote of the nearest training cells, less one half, instead of the margin.

    Raises:
        RecipeError: the run holds no votes.
    """
    if arm.votes is None:
        raise RecipeError(f"A run of {arm.system}, seed {arm.seed}, holds no votes: keep it with `dl4all study keep-run --votes`.")
    return replace(arm, margins=arm.votes - 0.5)


def by_seed(sides: Mapping[str, Sequence[Arm]]) -> str:
    """The AUC of every single run, as a table."""
    seeds = sorted({a.seed for arms in sides.values() for a in arms})
    lines = [f"| AUC | {' | '.join(f'seed {s}' for s in seeds)} |", "|---|" + "---|" * len(seeds)]
    for name, arms in sides.items():
        found = {a.seed: f"{auc(a.margins, a.is_blast):.4f}" for a in arms}
        lines.append(f"| {name} | {' | '.join(found.get(s, '') for s in seeds)} |")
    return "\n".join(lines)


def read_side(text: str, sources: Sources | None = None) -> tuple[str, list[Arm]]:
    """A side as it is typed, ``NAME=RUN,RUN``.

    Raises:
        RecipeError: it is none, a wildcard fits nothing, or a run is not a finished cross-validation.
    """
    name, equals, runs = text.partition("=")
    if not name or not equals or not runs:
        raise RecipeError(f"A side is NAME=RUN,RUN,..., not {text!r}.")
    paths = [path for run in runs.split(",") for path in _matching(run)]
    return name, [read_arm(path, sources) for path in paths]


def read_sides(texts: Sequence[str], sources: Sources | None = None) -> dict[str, list[Arm]]:
    """Sides by name, in order; see ``read_side``.

    Raises:
        RecipeError: two have the same name, or one cannot be read.
    """
    sides: dict[str, list[Arm]] = {}
    for text in texts:
        name, arms = read_side(text, sources)
        if name in sides:
            raise RecipeError(f"Two sides are called {name!r}.")
        sides[name] = arms
    return sides


def _matching(run: str) -> list[Path]:
    if not has_magic(run):
        return [Path(run)]
    found = sorted(map(Path, glob(run)))
    if not found:
        raise RecipeError(f"No run fits {run!r}.")
    return found


@explained
def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables, draw the pictures."""
    parser = program_parser("comparison", __doc__)
    parser.add_argument("sides", nargs="+", metavar="NAME=RUN,RUN", help="a side and its cross-validated runs")
    parser.add_argument("--data", type=Path, action="append", help="folder of the data, whose labels kept files need")
    parser.add_argument("--vote", action="store_true", help="compare the votes of the nearest training cells instead of the classifiers")
    parser.add_argument("--curves", type=Path, metavar="SVG", help="draw the training loss by epoch")
    parser.add_argument("--patients", type=Path, metavar="SVG", help="draw the AUC of every patient")
    given = parser.parse_args(arguments)
    sources = Sources.find(given.data, Path("build/packs")) if given.data else None
    sides = read_sides(given.sides, sources)
    if given.vote:
        sides = {name: [by_vote(arm) for arm in arms] for name, arms in sides.items()}
    print(markdown(table(sides)), by_seed(sides), sep="\n\n")
    if given.curves:
        draw_curves(sides, given.curves)
    if given.patients:
        draw_auc_by_patient(sides, given.patients)


if __name__ == "__main__":
    main()
