"""Does adding confirmed cells of a source that the library lacks help, without touching the network?

    dl4all study library-growth --data DIR... [--release ID] [--cells 50]

Cells of ``pbc_cells``, another hospital's normal cells, are added to the library of a release; the others of that source are held out. Repeated
over several draws. Printed is how blast-like the held-out cells look to the vote, before and after, and what becomes of the calibration
patients, whose figures must not fall beyond the margin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.common.releases import Release, ReleaseStore
from services.common.settings import CommonSettings
from services.gateway.fusion import CellRule
from services.gateway.rules import cell_rule
from services.preprocessing.unsharpening import FocusParameters
from services.retrieval.additions import Addition, NewReference
from services.retrieval.library import ReferenceLibrary, open_library
from training.command import explained, program_parser
from training.crops.sources import Sources
from training.datasets.dataset import Subset
from training.datasets.single_cells import PBC_CELLS, PBC_MATURE_CLASSES
from training.metrics.by_patient import auc
from training.recipes.config import Input, InputKind
from training.releases.library_growth import GATED, gated_figures, grown_library, recalibrated
from training.releases.verdicts import CalibrationCells, Judged, decide, judge, votes
from training.runs.target import TARGETS, choose

DRAWS: Final = 10
Chosen = NDArray[np.int64]


@dataclass(frozen=True)
class Effect:
    """Figures of a library: on held-out cells of the new source, and on calibration patients.

    Attributes:
        vote: mean vote for blast of the held-out cells, all normal.
        wrong: share of them that the vote alone calls blasts.
        suspected, indeterminate: shares of them.
        vote_auc: AUC of the vote on calibration patients.
        gated: figures that must not fall.
    """

    vote: float
    wrong: float
    suspected: float
    indeterminate: float
    vote_auc: float
    gated: dict[str, float]


def additions_of(judged: Judged, chosen: Chosen) -> list[Addition]:
    """Cells of a pack as additions, as the service would keep them."""
    pack = judged.pack
    return [
        Addition(
            number,
            NewReference(False, str(pack.class_names[i]), "", judged.embeddings[i], judged.place_embeddings[i], str(pack.sha256[i]), 0.0, 0.0, 1.0),
            "",
            pack.header.dataset,
            "the data set",
            0.0,
            "",
            None,
            None,
        )
        for number, i in enumerate(chosen.tolist(), start=1)
    ]


def effect(held_out: Judged, calibration: CalibrationCells, references: ReferenceLibrary, rule: CellRule, neighbours: int) -> Effect:
    """Measure one library."""
    voted = votes(held_out, references, neighbours)[0]
    verdicts = decide(held_out, references, rule, neighbours)
    return Effect(
        float(voted.mean()),
        float((voted > 0.5).mean()),
        float(verdicts.suspected.mean()),
        float(verdicts.indeterminate.mean()),
        auc(votes(calibration, references, neighbours)[0], calibration.is_blast.astype(np.int64)),
        gated_figures(calibration, decide(calibration, references, rule, neighbours)),
    )


def of_cells(judged: Judged, chosen: Chosen) -> Judged:
    """Some cells of judged ones."""
    return Judged(judged.pack.select(chosen), judged.logits[chosen], judged.embeddings[chosen], judged.place_embeddings[chosen])


def compare(
    release: Release, library: ReferenceLibrary, new_source: Judged, calibration: CalibrationCells, cells: int
) -> list[tuple[Effect, Effect]]:
    """Before and after, for several draws of the cells that are added."""
    mature = np.flatnonzero(np.isin(new_source.pack.class_names, sorted(PBC_MATURE_CLASSES)) & new_source.accepted)
    neighbours = release.calibration.voting_neighbours
    pairs = []
    for seed in range(DRAWS):
        order = np.random.default_rng(seed).permutation(mature)
        added, held_out = order[:cells], of_cells(new_source, np.sort(order[cells:]))
        grown = grown_library(library, additions_of(new_source, added))
        rule = recalibrated(release, calibration, grown)[1]
        pairs.append((effect(held_out, calibration, library, cell_rule(release), neighbours), effect(held_out, calibration, grown, rule, neighbours)))
    return pairs


def table(pairs: list[tuple[Effect, Effect]]) -> str:
    """Markdown table of means over the draws."""
    rows = [
        ("held-out cells, mean vote for blast", [(a.vote, b.vote) for a, b in pairs]),
        ("held-out cells that the vote alone calls blasts", [(a.wrong, b.wrong) for a, b in pairs]),
        ("held-out cells suspected", [(a.suspected, b.suspected) for a, b in pairs]),
        ("held-out cells indeterminate", [(a.indeterminate, b.indeterminate) for a, b in pairs]),
        ("AUC of the vote, calibration patients", [(a.vote_auc, b.vote_auc) for a, b in pairs]),
        *((name, [(a.gated[name], b.gated[name]) for a, b in pairs]) for name in GATED),
    ]
    lines = ["| | before | after | least and largest change |", "|---|---|---|---|"]
    for name, values in rows:
        before, after = np.array(values).T
        change = after - before
        lines.append(f"| {name} | {before.mean():.4f} | {after.mean():.4f} | {change.min():+.4f} to {change.max():+.4f} |")
    return "\n".join(lines)


@explained
def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = program_parser("library-growth", __doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of pbc_cells and of the cells that the release was made of")
    parser.add_argument("--release", default="", help="release id or system; the default release if not given")
    parser.add_argument("--cells", type=int, default=50, help="cells that are added (default: %(default)s)")
    parser.add_argument("--cache", type=Path, default=Path("build/packs"), help="folder where prepared crops are kept (default: %(default)s)")
    given = parser.parse_args(arguments)
    settings = CommonSettings()
    store = ReleaseStore(settings.releases, settings.model_repository)
    release = store.resolve(given.release)
    sources = Sources.find(given.data, given.cache)
    wanted, focus = Input(kind=InputKind.REGISTERED_SHARPENED, side=release.input.side), FocusParameters(**release.preprocessing.model_dump())
    path = store.model_path(release.network)
    own = sources.pack(choose(sources, "", TARGETS, "calibration", "--data"), wanted, focus=focus)
    calibration = CalibrationCells.of(judge(path, own.select(own.in_subset(Subset.CALIBRATION))))
    new_source = judge(path, sources.pack(PBC_CELLS, wanted, focus=focus))
    pairs = compare(release, open_library(store.library_path(release)), new_source, calibration, given.cells)
    print(f"{release.id}, {given.cells} cells of {PBC_CELLS} added, mean of {DRAWS} draws\n\n{table(pairs)}")


if __name__ == "__main__":
    main()
