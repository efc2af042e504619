"""Count answers, for Prometheus."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from services.common import metrics
from services.common.admission.caller import Caller
from services.gateway.cells import JudgedCell
from services.gateway.decision import Counts, DecidedImage, Decision

MOST_SOURCES: Final = 32
UNNAMED: Final = "unnamed"
OTHER: Final = "other"


class Sources:
    """Where images come from, for metrics: the names in the certificates of callers.

    The first ``MOST_SOURCES`` names are told apart, so that callers cannot fill the memory of Prometheus. Addresses are none: they change.
    """

    def __init__(self) -> None:
        self._names: set[str] = set()

    def of(self, caller: Caller) -> str:
        """The source of a caller's images."""
        name = caller.certificate_name
        if not name:
            return UNNAMED
        if len(self._names) < MOST_SOURCES:
            self._names.add(name)
        return name if name in self._names else OTHER


SOURCES: Final = Sources()
"""Of this process."""


def count_image(release: str, image: DecidedImage, cells: Iterable[JudgedCell], source: str = UNNAMED) -> None:
    """Count a decided image.

    Args:
        release: release id.
        image: the decided image.
        cells: its cells.
        source: of the image, see ``Sources``.
    """
    count_decision(release, image.decision, image.counts)
    metrics.CELLS_PER_IMAGE.observe(image.counts.total)
    for cell in cells:
        for reason in cell.verdict.reasons if cell.verdict.indeterminate else ():
            metrics.ABSTENTIONS.labels(release, reason).inc()
        if math.isfinite(cell.focus_before) and math.isfinite(cell.network_probability):
            metrics.CELL_FOCUS.labels(release, source).observe(cell.focus_before)
            metrics.CELL_BLAST_PROBABILITY.labels(release, source).observe(cell.network_probability)


def count_decision(release: str, decision: Decision, counts: Counts) -> None:
    """Count a decision.

    Args:
        release: release id.
        decision: the decision.
        counts: the cells that it rests on.
    """
    metrics.FINDINGS.labels(release, decision.finding).inc()
    for reason in decision.reasons:
        metrics.FINDING_REASONS.labels(release, reason).inc()
    metrics.CELLS.labels(release, "suspected").inc(counts.suspected)
    metrics.CELLS.labels(release, "indeterminate").inc(counts.indeterminate)
    metrics.CELLS.labels(release, "not_suspected").inc(counts.not_suspected)
