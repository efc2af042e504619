"""Count answers, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable

from services.common import metrics
from services.gateway.cells import JudgedCell
from services.gateway.decision import Counts, DecidedImage, Decision


def count_image(release: str, image: DecidedImage, cells: Iterable[JudgedCell]) -> None:
    """Count a decided image.

    Args:
        release: release id.
        image: the decided image.
        cells: its cells.
    """
    count_decision(release, image.decision, image.counts)
    metrics.CELLS_PER_IMAGE.observe(image.counts.total)
    for cell in cells:
        for reason in cell.verdict.reasons if cell.verdict.indeterminate else ():
            metrics.ABSTENTIONS.labels(release, reason).inc()


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
