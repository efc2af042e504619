"""Keep what a cross-validated run said of cells that it did not learn from, in one small file.

    dl4all study keep-run RUN... --data DATA --out docs/runs [--votes]

A kept file holds scores and learning curves, no image, name or label of a cell: whoever holds the data can print every comparison again in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from services.common.memory import keep_freed_memory
from training.command import explained, program_parser
from training.crops.sources import Sources
from training.errors import RecipeError
from training.evaluation.fold_votes import fold_votes
from training.files.array_file import SUFFIX, write_arrays
from training.runs.arms import KEPT_KIND, cells_digest, fold_folders, labelled_cells, read_arm, run_description

_KEPT: Final = ("recipe", "source", "target", "seed", "folds", "patients")
_CURVE: Final = ("epoch", "loss")


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
    arm, about = read_arm(run), run_description(run)
    cells = labelled_cells(sources, about["target"])
    keys = [c.key for c in cells]
    position = {key: i for i, key in enumerate(keys)}
    if not set(arm.keys) <= set(keys):
        raise RecipeError(f"{run} predicted cells that {about['target']} does not hold.")
    rows = [position[key] for key in arm.keys]
    if [(cells[i].group, cells[i].is_blast) for i in rows] != list(zip(arm.patients.tolist(), arm.is_blast.tolist(), strict=True)):
        raise RecipeError(f"{run} knew other labels or patients than those of the {about['target']} that --data names.")
    scores = {"margins": arm.margins}
    if with_votes:
        votes = fold_votes(fold_folders(run, about), about["target"], sources)
        scores["votes"] = np.array([votes[key] for key in arm.keys])
    arrays = {name: np.full(len(keys), np.nan, np.float16) for name in scores}
    for name, values in scores.items():
        arrays[name][rows] = values
    kept: dict[str, object] = {name: about[name] for name in _KEPT if name in about}
    curves = [[{name: round(float(row[name]), 5) for name in _CURVE} for row in history] for history in arm.histories]
    path = out / (run.name + SUFFIX)
    write_arrays(path, arrays, {"kind": KEPT_KIND, **kept, "cells": cells_digest(cells), "histories": curves})
    return path


@explained
def main(arguments: Sequence[str] | None = None) -> None:
    """Keep runs."""
    parser = program_parser("keep-run", __doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of cross-validated runs")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folder of the data that they predicted")
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    parser.add_argument("--votes", action="store_true", help="keep the votes of the nearest training cells as well; takes a minute or two per run")
    parser.add_argument("--cache", type=Path, default=Path("build/packs"), help="folder where prepared crops are kept (default: %(default)s)")
    given = parser.parse_args(arguments)
    keep_freed_memory(of_any_size=True)
    sources = Sources.find(given.data, given.cache)
    for run in given.runs:
        print(keep(run, sources, given.out, with_votes=given.votes))


if __name__ == "__main__":
    main()
