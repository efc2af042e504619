"""The decision on an image or a specimen: counts, bounds of the blast fraction, finding and reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np


class Finding(StrEnum):
    """Finding of an image, a slide or a specimen."""

    BLASTS_SUSPECTED = "BLASTS_SUSPECTED"
    NO_BLASTS_SEEN = "NO_BLASTS_SEEN"
    INDETERMINATE = "INDETERMINATE"


class Reason(StrEnum):
    """Reason of a finding, or of a review."""

    SUSPECTED_CELLS_ABOVE_CHANCE = "SUSPECTED_CELLS_ABOVE_CHANCE"
    SUSPECTED_CELLS_WITHIN_CHANCE = "SUSPECTED_CELLS_WITHIN_CHANCE"
    TOO_FEW_CELLS = "TOO_FEW_CELLS"
    NO_CELLS = "NO_CELLS"
    SINGLE_CELL = "SINGLE_CELL"
    BLAST_FRACTION_NOT_EXCLUDED = "BLAST_FRACTION_NOT_EXCLUDED"
    MOST_CELLS_INDETERMINATE = "MOST_CELLS_INDETERMINATE"
    MODEL_NOT_TRAINED_ON_LYMPHOBLASTS = "MODEL_NOT_TRAINED_ON_LYMPHOBLASTS"
    PHANTOM = "PHANTOM"
    IMAGES_FAILED = "IMAGES_FAILED"
    IMAGE_BLURRED = "IMAGE_BLURRED"
    IMAGE_OVEREXPOSED = "IMAGE_OVEREXPOSED"
    IMAGE_UNDEREXPOSED = "IMAGE_UNDEREXPOSED"
    CELLS_CROWDED = "CELLS_CROWDED"
    IMAGE_OBSTRUCTED = "IMAGE_OBSTRUCTED"
    COLOURS_DOUBTED = "COLOURS_DOUBTED"
    POOR_IMAGES = "POOR_IMAGES"
    BLASTS_SUSPECTED_IN_IMAGES = "BLASTS_SUSPECTED_IN_IMAGES"


@dataclass(frozen=True)
class Counts:
    """Nucleated cells of an image or specimen."""

    total: int
    suspected: int
    indeterminate: int

    @property
    def not_suspected(self) -> int:
        """Cells that were decided and are not suspected."""
        return self.total - self.suspected - self.indeterminate

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.total + other.total, self.suspected + other.suspected, self.indeterminate + other.indeterminate)


@dataclass(frozen=True)
class ImageRule:
    """Numbers of a release that decide an image; see ``services.common.releases.DecisionRule``."""

    false_blasts: Sequence[tuple[int, int]]
    min_cells_for_negative: int
    max_fraction_for_negative: float
    trained_on_lymphoblasts: bool


@dataclass(frozen=True)
class Decision:
    """Finding with its reasons and bounds.

    Attributes:
        finding: the finding.
        requires_review: whether a qualified reader must look, whatever the finding.
        reasons: machine-readable.
        lower, upper: bounds of the blast fraction, all indeterminate cells counted once as normal, once as blasts.
        false_blast_quantile: number of suspected cells that false alarms alone exceed in at most 1 % of such images.
    """

    finding: Finding
    requires_review: bool
    reasons: tuple[Reason, ...]
    lower: float
    upper: float
    false_blast_quantile: int


def blast_fraction(counts: Counts) -> tuple[float, float]:
    """Lower and upper bound of the blast fraction; (0, 1) without cells."""
    if counts.total == 0:
        return 0.0, 1.0
    return counts.suspected / counts.total, (counts.suspected + counts.indeterminate) / counts.total


def false_blast_quantile(cells: int, table: Sequence[tuple[int, int]]) -> int:
    """Number of falsely suspected cells that at most 1 % of images with this many cells exceed.

    Between two entries the one with more cells holds; beyond the last entry its share of cells holds.
    """
    for count, quantile in table:
        if cells <= count:
            return min(quantile, cells)
    count, quantile = table[-1]
    return int(np.ceil(quantile * cells / count))


def decide(
    counts: Counts,
    rule: ImageRule,
    *,
    phantom: bool = False,
    single_cell: bool = False,
    poor: Sequence[Reason] = (),
) -> Decision:
    """Decide an image or a slide.

    Args:
        counts: its cells.
        rule: numbers of the release.
        phantom: whether the image is a drawing.
        single_cell: whether the image shows one cell only; such an image is never NO_BLASTS_SEEN.
        poor: reasons why the image as a whole is poor; such an image is never NO_BLASTS_SEEN, because cells may have been missed in it.
    """
    barred = [*([Reason.SINGLE_CELL] if single_cell else []), *poor]
    return _decision(counts, counts, rule, barred, _noted(rule, phantom))


@dataclass(frozen=True)
class DecidedImage:
    """An image and its decision.

    Attributes:
        sha256: of the encoded image.
        counts: its cells.
        poor: why the image as a whole is too poor for a negative; empty where it is not.
        phantom: whether it is a drawing.
        decision: the decision.
    """

    sha256: str
    counts: Counts
    poor: tuple[Reason, ...]
    phantom: bool
    decision: Decision


def decide_image(sha256: str, counts: Counts, rule: ImageRule, *, phantom: bool, single_cell: bool, poor: tuple[Reason, ...]) -> DecidedImage:
    """Decide an image; see ``decide``."""
    decision = decide(counts, rule, phantom=phantom, single_cell=single_cell, poor=poor)
    return DecidedImage(sha256, counts, poor, phantom, decision)


@dataclass(frozen=True)
class SpecimenImages:
    """Sums over the images of a specimen.

    Attributes:
        counts: cells of all images.
        clear: cells of the images that are not poor as a whole.
        suspected: images that alone are BLASTS_SUSPECTED.
        failed: images that could not be judged.
        poor: images that are blurred, badly exposed or crowded as a whole.
        phantom: whether an image is a drawing.
    """

    counts: Counts = Counts(0, 0, 0)
    clear: Counts = Counts(0, 0, 0)
    suspected: int = 0
    failed: int = 0
    poor: int = 0
    phantom: bool = False


def decide_specimen(images: SpecimenImages, rule: ImageRule) -> Decision:
    """Decide a specimen. It is NO_BLASTS_SEEN only if no image failed, none alone is BLASTS_SUSPECTED, and the images that are not poor suffice by
    themselves. Cells may have been missed in poor images.

    Args:
        images: its images.
        rule: numbers of the release.
    """
    barred = [reason for reason, count in ((Reason.BLASTS_SUSPECTED_IN_IMAGES, images.suspected), (Reason.IMAGES_FAILED, images.failed)) if count]
    noted = [*_noted(rule, images.phantom), *([Reason.POOR_IMAGES] if images.poor else [])]
    return _decision(images.counts, images.clear, rule, barred, noted)


def _noted(rule: ImageRule, phantom: bool) -> list[Reason]:
    """Reasons of review, whatever the finding."""
    return [
        *([] if rule.trained_on_lymphoblasts else [Reason.MODEL_NOT_TRAINED_ON_LYMPHOBLASTS]),
        *([Reason.PHANTOM] if phantom else []),
    ]


def _decision(counts: Counts, clear: Counts, rule: ImageRule, barred: Sequence[Reason], noted: Sequence[Reason]) -> Decision:
    """Decide by all cells; NO_BLASTS_SEEN must hold for the clear cells too.

    Args:
        counts, clear: all cells, and the cells of images that are not poor.
        rule: numbers of the release.
        barred: reasons that exclude NO_BLASTS_SEEN, whatever the cells.
        noted: reasons of review, whatever the finding.
    """
    limit = false_blast_quantile(counts.total, rule.false_blasts)
    finding, reasons = _find(counts, clear, rule, limit, barred)
    requires_review = bool(noted) or finding is not Finding.NO_BLASTS_SEEN
    return Decision(finding, requires_review, (*reasons, *noted), *blast_fraction(counts), limit)


def _find(counts: Counts, clear: Counts, rule: ImageRule, limit: int, barred: Sequence[Reason]) -> tuple[Finding, list[Reason]]:
    if counts.total == 0:
        return Finding.INDETERMINATE, [Reason.NO_CELLS, *barred]
    if counts.suspected > limit:
        return Finding.BLASTS_SUSPECTED, [Reason.SUSPECTED_CELLS_ABOVE_CHANCE, *barred]
    upper = max(blast_fraction(counts)[1], blast_fraction(clear)[1])
    reasons = []
    if counts.suspected:
        reasons.append(Reason.SUSPECTED_CELLS_WITHIN_CHANCE)
    reasons.extend(barred)
    if clear.total < rule.min_cells_for_negative:
        reasons.append(Reason.TOO_FEW_CELLS)
    if counts.indeterminate * 2 > counts.total:
        reasons.append(Reason.MOST_CELLS_INDETERMINATE)
    if upper >= rule.max_fraction_for_negative:
        reasons.append(Reason.BLAST_FRACTION_NOT_EXCLUDED)
    negative = not barred and clear.total >= rule.min_cells_for_negative and upper < rule.max_fraction_for_negative
    return (Finding.NO_BLASTS_SEEN if negative else Finding.INDETERMINATE), reasons
