"""False reassurance: how often a release says what of specimens with a known share of blasts, resampled from single patients.

    dl4all study false-reassurance --data DIR --release ID [--subset test]

A specimen is drawn with replacement from the cells of one patient: his blasts and his normal cells, in the wanted share. Every patient
counts the same. The cells are judged by the file that ONNX Runtime serves, and specimens are decided by the gateway's own rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.common.releases import Release, ReleaseStore
from services.common.settings import CommonSettings
from services.gateway.decision import Counts, Finding, ImageRule, decide
from services.gateway.rules import cell_rule, image_rule
from services.retrieval.library import open_library
from training.command import explained, program_parser
from training.crops.sources import Sources
from training.datasets.dataset import Subset
from training.releases.verdicts import decide as decide_cells
from training.releases.verdicts import judge_as_served

Flags = NDArray[np.bool_]
CELLS: Final = (20, 100, 500)
SHARES: Final = (0.0, 0.01, 0.05, 0.2)
SPECIMENS: Final = 500
"""Specimens that are drawn of each patient."""
MIN_OF_EACH: Final = 10
"""Blasts and normal cells that a patient must have, so that a specimen is not one cell many times."""


@dataclass(frozen=True)
class JudgedCells:
    """Verdicts on cells of known class.

    Attributes:
        is_blast, suspected, indeterminate: bool (N,).
        patients: str (N,).
    """

    is_blast: Flags
    suspected: Flags
    indeterminate: Flags
    patients: NDArray[np.str_]


def findings_by_patient(
    cells: JudgedCells, rule: ImageRule, count: int, share: float, specimens: int = SPECIMENS, seed: int = 0
) -> Mapping[str, Mapping[Finding, float]]:
    """Share of each finding among the resampled specimens of each patient.

    Args:
        cells: to draw from.
        rule: of the release.
        count: nucleated cells of a specimen.
        share: of blasts among them, 0..1; the number of blasts is rounded.
        specimens: drawn of each patient.
        seed: same seed, same specimens.
    """
    random = np.random.default_rng(seed)
    blasts = round(share * count)
    found = {}
    for patient in np.unique(cells.patients):
        own = cells.patients == patient
        of_class = [np.flatnonzero(own & (cells.is_blast == label)) for label in (False, True)]
        if min(map(len, of_class)) < MIN_OF_EACH:
            continue
        drawn = [random.choice(indices, (specimens, number)) for indices, number in zip(of_class, (count - blasts, blasts), strict=True)]
        chosen = np.concatenate(drawn, axis=1)
        suspected, indeterminate = cells.suspected[chosen].sum(axis=1), cells.indeterminate[chosen].sum(axis=1)
        findings = [decide(Counts(count, int(s), int(i)), rule).finding for s, i in zip(suspected, indeterminate, strict=True)]
        found[str(patient)] = {finding: findings.count(finding) / specimens for finding in Finding}
    return found


def table(cells: JudgedCells, rule: ImageRule) -> str:
    """Markdown table over numbers of cells and shares of blasts: mean over patients, and the worst patient's false reassurance."""
    lines = ["| cells | blasts | BLASTS_SUSPECTED | INDETERMINATE | NO_BLASTS_SEEN | NO_BLASTS_SEEN, worst patient |", "|---|---|---|---|---|---|"]
    patients = 0
    for count in CELLS:
        for share in SHARES:
            found = findings_by_patient(cells, rule, count, share)
            patients = len(found)
            mean = {f: float(np.mean([p[f] for p in found.values()])) for f in Finding}
            worst = max(found, key=lambda p: found[p][Finding.NO_BLASTS_SEEN])
            says = found[worst][Finding.NO_BLASTS_SEEN]
            named = f"{says:.1%}" + (f" ({worst})" if says else "")
            shares = " | ".join(f"{mean[f]:.1%}" for f in (Finding.BLASTS_SUSPECTED, Finding.INDETERMINATE, Finding.NO_BLASTS_SEEN))
            lines.append(f"| {count} | {share:.0%} | {shares} | {named} |")
    return "\n".join([f"{patients} patients with at least {MIN_OF_EACH} cells of each class, {SPECIMENS} specimens each", "", *lines])


def judged_cells(release: Release, store: ReleaseStore, sources: Sources, subsets: Sequence[Subset]) -> JudgedCells:
    """Judge the cells of ``aml_cells`` by a release as it is served."""
    judged = judge_as_served(release, store, sources, *subsets)
    verdicts = decide_cells(judged, open_library(store.library_path(release)), cell_rule(release), release.calibration.voting_neighbours)
    return JudgedCells(judged.pack.is_blast == 1, verdicts.suspected, verdicts.indeterminate, judged.pack.groups)


@explained
def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = program_parser("false-reassurance", __doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folder of aml_cells, or a pack of it")
    parser.add_argument("--release", default="", help="release id or system; the default release if not given")
    parser.add_argument("--subset", choices=("calibration", "test"), default="test", help="whose cells are drawn (default: %(default)s)")
    parser.add_argument("--cache", type=Path, default=Path("build/packs"), help="folder where prepared crops are kept (default: %(default)s)")
    given = parser.parse_args(arguments)
    settings = CommonSettings()
    store = ReleaseStore(settings.releases, settings.model_repository)
    release = store.resolve(given.release)
    cells = judged_cells(release, store, Sources.find(given.data, given.cache), [Subset(given.subset)])
    print(f"{release.id}, {given.subset} patients; {table(cells, image_rule(release))}")


if __name__ == "__main__":
    main()
