"""Does sharpening help? The same network on the same patients, on sharpened crops and on the same crops unsharpened.

    dl4all study sharpening --sharpened RUN,RUN --unsharpened RUN,RUN --pack SHARPENED.pack [--data DATA]

Runs are grouped cross-validations, paired by seed. The pack tells how blurred each cell was before sharpening.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.command import explained, program_parser
from training.crops.packs import Pack, read_pack
from training.crops.sources import Sources
from training.errors import RecipeError
from training.evaluation.comparison import FIGURES, read_side, signed
from training.evaluation.comparison import table as compared
from training.runs.arms import Arm


def of_cells(arm: Arm, wanted: NDArray[np.str_]) -> Arm:
    """The part of a run that predicts some of the cells, by key."""
    chosen = np.isin(arm.keys, wanted)
    votes = None if arm.votes is None else arm.votes[chosen]
    return replace(arm, keys=arm.keys[chosen], margins=arm.margins[chosen], is_blast=arm.is_blast[chosen], patients=arm.patients[chosen], votes=votes)


def by_focus(pack: Pack) -> dict[str, NDArray[np.str_]]:
    """Keys of all cells, of the sharpest and of the blurriest quarter, by the focus score before sharpening.

    Raises:
        RecipeError: the pack was not sharpened.
    """
    scores = pack.measures.get("focus_before")
    if scores is None or np.isnan(scores).any():
        raise RecipeError(f"The crops are {pack.header.input}; the pack with the sharpened ones tells the focus.")
    low, high = np.quantile(scores, (0.25, 0.75))
    return {"all": pack.keys, "sharpest quarter": pack.keys[scores <= low], "blurriest quarter": pack.keys[scores >= high]}


def shares(pack: Pack) -> str:
    """How many cells were sharpened: of all, of the blurriest quarter, of blasts and of normal cells."""
    sharpened = pack.measures["focus_after"] != pack.measures["focus_before"]
    blurriest = np.isin(pack.keys, by_focus(pack)["blurriest quarter"])
    parts = {
        "all": sharpened,
        "blurriest quarter": sharpened[blurriest],
        "blasts": sharpened[pack.is_blast == 1],
        "normal": sharpened[pack.is_blast == 0],
    }
    return "sharpened: " + ", ".join(f"{name} {part.mean():.1%}" for name, part in parts.items())


def table(sharpened: Sequence[Arm], unsharpened: Sequence[Arm], pack: Pack) -> str:
    """Markdown table: mean over seeds of either side, and their difference, for all cells and by focus."""
    lines = ["| cells | figure | sharpened | unsharpened | difference |", "|---|---|---|---|---|"]
    for name, keys in by_focus(pack).items():
        without, with_it = compared({"unsharpened": [of_cells(a, keys) for a in unsharpened], "sharpened": [of_cells(a, keys) for a in sharpened]})
        lines += [f"| {name} | {f} | {with_it.figures[f]} | {without.figures[f]} | {signed(with_it.differences[f])} |" for f in FIGURES]
    return "\n".join(lines)


@explained
def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = program_parser("sharpening", __doc__)
    for side in ("sharpened", "unsharpened"):
        parser.add_argument(f"--{side}", required=True, metavar="RUN,RUN", help=f"cross-validated runs on {side} crops, or files kept of them")
    parser.add_argument("--data", type=Path, nargs="+", help="folder of the data, whose labels kept files need")
    parser.add_argument("--pack", type=Path, required=True, help="pack of the sharpened crops")
    given = parser.parse_args(arguments)
    sources = Sources.find(given.data, Path("build/packs")) if given.data else None
    sharpened, unsharpened = (read_side(f"{side}={getattr(given, side)}", sources)[1] for side in ("sharpened", "unsharpened"))
    pack = read_pack(given.pack)
    print(shares(pack))
    print(table(sharpened, unsharpened, pack))


if __name__ == "__main__":
    main()
