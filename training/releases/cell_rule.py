"""The rule by which cells are judged, fitted on calibration cells: when a release is built, and when its library grows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from services.gateway.fusion import CellRule, fuse
from services.retrieval.library import ReferenceLibrary
from training.releases import calibration
from training.releases.verdicts import CalibrationCells, Verdicts, votes

_QUANTILES: Final = 21


@dataclass(frozen=True)
class FittedRule:
    """A rule, and figures found while it was fitted.

    Attributes:
        rule: of the cells.
        coverage: nominal, of its prediction sets.
        nearest_distances: distances of calibration cells to the nearest reference, at evenly spaced quantiles 0..1.
    """

    rule: CellRule
    coverage: float
    nearest_distances: tuple[float, ...]


def fit_cell_rule(cells: CalibrationCells, references: ReferenceLibrary, neighbours: int, max_disagreement: float, min_nothing: float) -> FittedRule:
    """Fit the weight of the network and the thresholds of the prediction sets; patients weighted equally, accepted cells alone.

    Args:
        cells: calibration cells.
        references: the library that votes.
        neighbours: how many vote.
        max_disagreement, min_nothing: of the rule; not fitted.

    Raises:
        GateError: too few patients for any prediction set.
    """
    chosen = cells.accepted
    voted, distances = (v[chosen] for v in votes(cells, references, neighbours))
    network, labels, patients = cells.probability[chosen], cells.is_blast[chosen].astype(np.int64), cells.groups[chosen]
    weight = calibration.fit_network_weight(network, voted, labels, calibration.patient_class_weights(labels, patients))
    coverage = calibration.promised_coverage(labels, patients)
    thresholds = calibration.min_probabilities(fuse(network, voted, weight), labels, patients, coverage)
    quantiles = tuple(round(float(q), 4) for q in np.quantile(distances, np.linspace(0, 1, _QUANTILES)))
    return FittedRule(CellRule(weight, thresholds, max_disagreement, min_nothing), coverage, quantiles)


def false_blasts(cells: CalibrationCells, verdicts: Verdicts) -> tuple[tuple[int, int], ...]:
    """How many cells are falsely suspected by number of cells; see ``calibration.false_blast_table``."""
    return calibration.false_blast_table(verdicts.suspected, cells.is_blast.astype(np.int64), cells.groups)
