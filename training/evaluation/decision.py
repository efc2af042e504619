"""Does the decision hold on the test patients? AUC, fusion, coverage of the prediction sets, abstentions, and risk against coverage.

    dl4all study decision --release ID... --data .../aml_cells [--legacy-vote]
        [--picture docs/pictures/risk_coverage.svg] [--reliability docs/pictures/reliability.svg] [--patients docs/pictures/patients.svg]

How a release does on cells that it has never seen, your own or those of another source: a ``cells.csv`` whose subset is ``test`` throughout,
or ``--subset all`` for ALL-IDB2 and C-NMC.

The cells are judged by the file that ONNX Runtime serves and by the functions that serve. Intervals: 95 %, bootstrap by patient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.common.cell_classes import BLAST, NORMAL
from services.common.releases import Release, ReleaseStore
from services.common.settings import CommonSettings
from services.gateway.fusion import CellReason
from services.gateway.rules import cell_rule
from services.preprocessing.unsharpening import QualityReason
from services.retrieval.library import ReferenceLibrary, open_library
from services.retrieval.neighbours import legacy_vote, unit
from services.retrieval.search import ExactSearch
from training.command import explained, program_parser
from training.crops.sources import Sources
from training.datasets.dataset import Subset
from training.errors import RecipeError
from training.evaluation.release_pictures import draw_reliability, draw_verdicts_by_patient, reliability
from training.evaluation.risk_coverage import Line, draw, risk_coverage
from training.metrics.by_patient import RESAMPLES, Interval, auc, balanced_accuracy, bootstrap_by_patient, bootstrap_of
from training.releases.verdicts import Judged, cell_verdicts, judge_as_served, votes
from training.runs.target import TARGETS, choose

Double = NDArray[np.float64]
Flags = NDArray[np.bool_]
Integers = NDArray[np.int64]
Names = NDArray[np.str_]

LARGEST_LOSS: Final = 0.01
"""The lower bound of fused minus better shall lie above minus this."""
TOLERANCE: Final = 0.05
"""Coverage shall not lie more than this below nominal."""
MOST_ABSTENTIONS: Final = 0.15
"""Share of test cells that may be INDETERMINATE."""
LEGACY_NEIGHBOURS: Final = 3
REASONS: Final = (
    QualityReason.LOW_RESOLUTION.value,
    QualityReason.POOR_FOCUS.value,
    CellReason.BOTH_CLASSES_POSSIBLE.value,
    CellReason.NO_CLASS_TYPICAL.value,
    CellReason.NETWORK_AND_NEIGHBOURS_DISAGREE.value,
    CellReason.NO_CELL_SEEN.value,
)
"""Reasons that make a registered cell INDETERMINATE, in the order in which they are looked for."""

_AUC_HEAD: Final = ("release", "AUC, network", "AUC, vote", "AUC, fused")
_FUSION_HEAD: Final = ("release", "balanced accuracy, network", "vote", "fused", "fused - better", f"lower bound above -{LARGEST_LOSS}")
_COVERAGE_HEAD: Final = ("release", "blast, over patients", "blast, over cells", "normal, over patients", "normal, over cells")
_ABSTENTION_HEAD: Final = ("release", "all", "blasts", "normal cells", f"all at most {MOST_ABSTENTIONS:.0%}", *REASONS)
_RISK_HEAD: Final = ("release", "area, fused", "area, network", "wrong if all are decided", "decided by the release", "wrong among these")
_LEGACY_HEAD: Final = ("release", "the paper's vote, k = 3", "by distance, k = 3", "by distance, k of the release", "the paper's minus the release's")


@dataclass(frozen=True)
class ScoredCells:
    """Decisions on N cells of known class.

    Attributes:
        is_blast: (N,) 0 or 1.
        patients: (N,).
        network, vote, fused: probability of blast, float64 (N,).
        in_set: whether the true class is in the prediction set, bool (N,).
        suspected, indeterminate: bool (N,).
        reasons: of each cell, N entries.
    """

    is_blast: Integers
    patients: Names
    network: Double
    vote: Double
    fused: Double
    in_set: Flags
    suspected: Flags
    indeterminate: Flags
    reasons: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Fusion:
    """Balanced accuracy at 0.5, and the paired difference of the fused probability to the better of its parts."""

    network: Interval
    vote: Interval
    fused: Interval
    difference: Interval

    @property
    def holds(self) -> bool:
        """Whether the fused probability is not worse than the better part by more than ``LARGEST_LOSS``."""
        return self.difference.low > -LARGEST_LOSS


@dataclass(frozen=True)
class Abstentions:
    """Why cells of one kind are INDETERMINATE.

    Attributes:
        total: share of cells, with interval.
        having: share of cells by reason; a cell may have several.
        first: share of cells by first reason; these add up to the total.
    """

    total: Interval
    having: dict[str, float]
    first: dict[str, float]


def fusion(cells: ScoredCells, resamples: int = RESAMPLES) -> Fusion:
    """Compare the fused probability with network and vote; the better of these is chosen anew in every resample."""

    def of(scores: Double, weights: Double) -> float:
        return balanced_accuracy(scores, cells.is_blast, weights)

    def difference(weights: Double) -> float:
        return of(cells.fused, weights) - max(of(cells.network, weights), of(cells.vote, weights))

    def interval(scores: Double) -> Interval:
        return bootstrap_of(lambda w: of(scores, w), cells.patients, resamples)

    return Fusion(interval(cells.network), interval(cells.vote), interval(cells.fused), bootstrap_of(difference, cells.patients, resamples))


def share(flags: Flags, patients: Names, *, by_patient: bool, resamples: int = RESAMPLES) -> Interval:
    """Share of cells that are flagged.

    Args:
        flags: (N,), N >= 1.
        patients: (N,).
        by_patient: mean over patients, each counting the same; else over cells.
        resamples: number of draws.
    """
    _, inverse, counts = np.unique(patients, return_inverse=True, return_counts=True)
    own = 1.0 / counts[inverse] if by_patient else np.ones(len(flags))
    return bootstrap_of(lambda w: float((w * own * flags).sum() / (w * own).sum()), patients, resamples)


def against_nominal(coverage: Interval, nominal: float) -> str:
    """Compare a coverage with its nominal value, in words; "too low" where it is below by more than ``TOLERANCE``."""
    if coverage.low > nominal:
        where = "conservative"
    elif coverage.high < nominal:
        where = "interval below nominal"
    else:
        where = "contains nominal"
    return where if coverage.value >= nominal - TOLERANCE else f"too low, {where}"


def abstentions(cells: ScoredCells, chosen: Flags, resamples: int = RESAMPLES) -> Abstentions:
    """Count INDETERMINATE cells by reason.

    Args:
        cells: what is decided.
        chosen: (N,) which cells count.
        resamples: number of draws.
    """
    of_cells = [[r for r in cells.reasons[i] if r in REASONS] if cells.indeterminate[i] else [] for i in np.flatnonzero(chosen)]
    having = {reason: float(np.mean([reason in reasons for reasons in of_cells])) for reason in REASONS}
    first = {reason: float(np.mean([reasons[:1] == [reason] for reasons in of_cells])) for reason in REASONS}
    total = share(cells.indeterminate[chosen], cells.patients[chosen], by_patient=False, resamples=resamples)
    return Abstentions(total, having, first)


def operating_point(cells: ScoredCells) -> tuple[float, float]:
    """Share of cells that the release decides, and the share of wrong ones among these; NaN where it decides none."""
    decided = ~cells.indeterminate
    wrong = cells.suspected[decided] != (cells.is_blast[decided] == 1)
    return float(decided.mean()), float(wrong.mean()) if decided.any() else float("nan")


def scored(judged: Judged, references: ReferenceLibrary, release: Release) -> ScoredCells:
    """Decide cells by the rule of a release, as the gateway does."""
    voted = votes(judged, references, release.calibration.voting_neighbours)[0]
    verdicts = cell_verdicts(judged, voted, cell_rule(release))
    is_blast = judged.pack.is_blast.astype(np.int64)
    return ScoredCells(
        is_blast=is_blast,
        patients=judged.pack.groups,
        network=judged.probability,
        vote=voted,
        fused=np.array([v.probability for v in verdicts]),
        in_set=np.array([(BLAST if b else NORMAL) in v.prediction_set for v, b in zip(verdicts, is_blast, strict=True)]),
        suspected=np.array([v.suspected for v in verdicts]),
        indeterminate=np.array([v.indeterminate for v in verdicts]),
        reasons=tuple(v.reasons for v in verdicts),
    )


def legacy_scores(judged: Judged, references: ReferenceLibrary) -> Double:
    """The paper's vote for each cell, 0 or 1, float64 (N,): the three nearest by the metric of the release."""
    indices, _ = ExactSearch(references.embeddings).nearest(unit(judged.embeddings), LEGACY_NEIGHBOURS)
    return legacy_vote(references.is_blast[indices]).astype(np.float64)


def auc_row(name: str, cells: ScoredCells, resamples: int = RESAMPLES) -> str:
    """Row of the table of AUCs."""
    scores = (cells.network, cells.vote, cells.fused)
    return f"| `{name}` | {' | '.join(str(bootstrap_by_patient(auc, s, cells.is_blast, cells.patients, resamples)) for s in scores)} |"


def fusion_row(name: str, found: Fusion) -> str:
    """Row of the table of fusion."""
    says = "yes" if found.holds else "no"
    return f"| `{name}` | {found.network} | {found.vote} | {found.fused} | {_signed(found.difference)} | {says} |"


def coverage_row(name: str, cells: ScoredCells, nominal: float) -> str:
    """Row of the table of coverage: each class, over patients and over cells."""
    said = []
    for label in (1, 0):
        own = cells.is_blast == label
        for by_patient in (True, False):
            found = share(cells.in_set[own], cells.patients[own], by_patient=by_patient)
            said.append(f"{found} {against_nominal(found, nominal)}")
    return f"| `{name}` | {' | '.join(said)} |"


def abstention_row(name: str, cells: ScoredCells) -> str:
    """Row of the table of abstentions: all cells, blasts, normal cells; then by reason, and in parentheses by first reason."""
    kinds = (np.ones(len(cells.is_blast), np.bool_), cells.is_blast == 1, cells.is_blast == 0)
    found = [abstentions(cells, chosen) for chosen in kinds]
    totals = " | ".join(f"{f.total.value:.1%} [{f.total.low:.1%}, {f.total.high:.1%}]" for f in found)
    aim = "yes" if found[0].total.value <= MOST_ABSTENTIONS else "no"
    by_reason = []
    for reason in REASONS:
        having, first = (
            " / ".join(f"{shares[reason]:.1%}" for shares in of_kinds) for of_kinds in ([f.having for f in found], [f.first for f in found])
        )
        by_reason.append(f"{having} ({first})" if found[0].having[reason] else "none")
    return f"| `{name}` | {totals} | {aim} | {' | '.join(by_reason)} |"


def risk_row(line: Line) -> str:
    """Row of the table of risk against coverage."""
    return f"| `{line.name}` | {line.fused.area:.4f} | {line.network.area:.4f} | {line.fused.error[-1]:.1%} | {line.decided:.1%} | {line.error:.1%} |"


def legacy_row(name: str, judged: Judged, references: ReferenceLibrary, cells: ScoredCells) -> str:
    """Row of the table of the paper's vote."""
    legacy, three = legacy_scores(judged, references), votes(judged, references, LEGACY_NEIGHBOURS)[0]

    def interval(scores: Double) -> Interval:
        return bootstrap_of(lambda w: balanced_accuracy(scores, cells.is_blast, w), cells.patients)

    difference = bootstrap_of(
        lambda w: balanced_accuracy(legacy, cells.is_blast, w) - balanced_accuracy(cells.vote, cells.is_blast, w), cells.patients
    )
    return f"| `{name}` | {interval(legacy)} | {interval(three)} | {interval(cells.vote)} | {_signed(difference)} |"


def _signed(interval: Interval) -> str:
    return f"{interval.value:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"


def _table(head: Sequence[str], rows: Sequence[str]) -> str:
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *rows, ""])


@explained
def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables, draw the pictures."""
    parser = program_parser("decision", __doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folder of single cells, or packs of it")
    parser.add_argument("--release", nargs="+", default=[""], help="release ids or systems; the default release if not given")
    parser.add_argument("--target", default="", help="data set, where --data names several sets of cells")
    parser.add_argument("--subset", choices=("calibration", "test", "all"), default="test", help="whose cells (default: %(default)s)")
    parser.add_argument("--cache", type=Path, default=Path("build/packs"), help="folder where prepared crops are kept (default: %(default)s)")
    parser.add_argument("--picture", type=Path, help="SVG file for risk against coverage")
    parser.add_argument("--reliability", type=Path, help="SVG file for the observed share of blasts by probability")
    parser.add_argument("--patients", type=Path, help="SVG file for what the first release says of every patient")
    parser.add_argument("--legacy-vote", action="store_true", help="compare the paper's vote with that of the release, and nothing else")
    given = parser.parse_args(arguments)
    settings = CommonSettings()
    store = ReleaseStore(settings.releases, settings.model_repository)
    sources = Sources.find(given.data, given.cache)
    subsets = () if given.subset == "all" else (Subset(given.subset),)
    name = choose(sources, given.target, TARGETS, "cells", "--target")
    found: list[tuple[Release, Judged, ReferenceLibrary, ScoredCells]] = []
    for release in map(store.resolve, given.release):
        references = open_library(store.library_path(release))
        if not subsets and any(name in words for words in release.data.values()):
            raise RecipeError(f"{release.id} has learned from {name}: all of its cells say nothing. Give those that it has not seen the subset test.")
        judged = judge_as_served(release, store, sources, *subsets, target=name)
        if len(np.unique(judged.pack.is_blast)) < 2:
            raise RecipeError(f"The cells of {name} are of one class. `dl4all diagnose DIR --json | dl4all study other-sources` counts suspects.")
        found.append((release, judged, references, scored(judged, references, release)))
    if given.legacy_vote:
        print(_table(_LEGACY_HEAD, [legacy_row(release.id, judged, references, cells) for release, judged, references, cells in found]))
        return
    print_tables([(release, cells) for release, _, _, cells in found], given.picture)
    if given.reliability:
        draw_reliability({release.id: reliability(cells.fused, cells.is_blast, cells.patients) for release, _, _, cells in found}, given.reliability)
    if given.patients:
        release, _, _, cells = found[0]
        draw_verdicts_by_patient(release.id, cells.patients, cells.is_blast, cells.suspected, cells.indeterminate, given.patients)


def print_tables(found: Sequence[tuple[Release, ScoredCells]], picture: Path | None) -> None:
    """Print the five tables as Markdown and draw the picture if one is wanted."""
    lines = [Line(r.id, risk_coverage(c.fused, c.is_blast), risk_coverage(c.network, c.is_blast), *operating_point(c)) for r, c in found]
    tables: list[tuple[tuple[str, ...], list[str]]] = [
        (_AUC_HEAD, [auc_row(r.id, c) for r, c in found]),
        (_FUSION_HEAD, [fusion_row(r.id, fusion(c)) for r, c in found]),
        (_COVERAGE_HEAD, [coverage_row(r.id, c, r.calibration.coverage) for r, c in found]),
        (_ABSTENTION_HEAD, [abstention_row(r.id, c) for r, c in found]),
        (_RISK_HEAD, [risk_row(line) for line in lines]),
    ]
    for head, rows in tables:
        print(_table(head, rows))
    if picture:
        draw(lines, picture)


if __name__ == "__main__":
    main()
