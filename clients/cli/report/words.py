"""What the report says: findings, reasons and numbers in plain words."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all.imaging.v1 import imaging_pb2

SPACE: Final = "\u00a0"
"""Space at which no line breaks."""
NOT_JUDGED: Final = "not judged"


class CellState(StrEnum):
    """What is said of a cell; the order is that of the report."""

    SUSPECTED = "suspected"
    INDETERMINATE = "indeterminate"
    NOT_SUSPECTED = "not_suspected"


STATE_WORDS: Final[Mapping[CellState, str]] = {
    CellState.SUSPECTED: "suspected",
    CellState.INDETERMINATE: "indeterminate",
    CellState.NOT_SUSPECTED: "not suspected",
}


@dataclass(frozen=True)
class FindingWords:
    """A finding in words.

    Attributes:
        tone: name of its style: suspected, clear or indeterminate.
        title: the finding.
        sentence: the finding as a sentence.
        means: what follows from it.
        means_not: what does not follow from it.
    """

    tone: str
    title: str
    sentence: str
    means: str
    means_not: str


@dataclass(frozen=True)
class ReasonWords:
    """A machine-readable reason and its sentence; the sentence is empty for an unknown code."""

    code: str
    sentence: str


_TARGETS: Final[Mapping[int, str]] = {
    diagnosis_pb2.DETECTS_LYMPHOBLAST: "lymphoblast of acute lymphoblastic leukaemia",
    diagnosis_pb2.DETECTS_BLAST_LINEAGE_UNSPECIFIED: "leukaemic blast, lineage unspecified",
}

_LINEAGE: Final[Mapping[int, str]] = {
    diagnosis_pb2.DETECTS_LYMPHOBLAST: "Blasts of other lineages were not what this release was trained to detect.",
    diagnosis_pb2.DETECTS_BLAST_LINEAGE_UNSPECIFIED: "It says nothing about the lineage: not which leukaemia it would be, if any.",
}

_NO_LINEAGE: Final = "The answer does not say which kind of blast its release was trained to detect."

_IMAGE_REASONS: Final[Mapping[str, str]] = {
    "SUSPECTED_CELLS_ABOVE_CHANCE": "More cells are suspected than false alarms alone would explain in an image with this many cells.",
    "SUSPECTED_CELLS_WITHIN_CHANCE": "Some cells are suspected, but no more than false alarms alone can explain.",
    "TOO_FEW_CELLS": "Too few nucleated cells were counted to say that blasts are absent.",
    "NO_CELLS": "No nucleated cell was found, so there was nothing to judge.",
    "SINGLE_CELL": "The image shows a single cell; one cell cannot show that blasts are absent from a smear.",
    "BLAST_FRACTION_NOT_EXCLUDED": "If every indeterminate cell were a blast, the share of blasts would reach the limit of the release.",
    "MOST_CELLS_INDETERMINATE": "More than half of the cells are indeterminate.",
    "MODEL_NOT_TRAINED_ON_LYMPHOBLASTS": (
        "The release was not trained on lymphoblasts, so it can neither confirm nor exclude a lymphoblastic leukaemia; "
        "a qualified reader must look whatever the finding."
    ),
    "PHANTOM": "This is a drawing with no patient behind it.",
    "BLASTS_SUSPECTED_IN_IMAGES": "In one image of the specimen or more, blasts are suspected.",
    "IMAGES_FAILED": "Some images of the specimen could not be read.",
    "IMAGE_BLURRED": "The image is out of focus as a whole; cells may have been missed.",
    "IMAGE_OVEREXPOSED": "Most of the image is white beyond what the camera can tell; cells may have been missed.",
    "IMAGE_UNDEREXPOSED": "A part of the image is black; cells may have been missed.",
    "CELLS_CROWDED": "The cells lie upon each other; some may have been missed or taken for one.",
    "COLOURS_DOUBTED": "The colours cannot be those of a stain; the file may be stored or labelled wrongly.",
    "IMAGE_OBSTRUCTED": "Ink, pointers or text cover a part of the image; they may hide cells.",
    "POOR_IMAGES": "Some images of the specimen are blurred, badly exposed or crowded; cells may have been missed in them.",
}

_CELL_REASONS: Final[Mapping[str, str]] = {
    "BOTH_CLASSES_POSSIBLE": "Neither “normal” nor “blast” can be excluded.",
    "NO_CLASS_TYPICAL": "The cell is typical of neither class that the release knows.",
    "NETWORK_AND_NEIGHBOURS_DISAGREE": "The network and the nearest known cells disagree.",
    "NO_CELL_SEEN": "The network sees no nucleated cell here.",
    "POOR_FOCUS": "The cell is too blurred to be judged, even sharpened.",
    "LOW_RESOLUTION": "The cell is shown with too few pixels to be judged.",
    "SHARPENING_FAILED": "Sharpening did not reach the wanted focus; the cell was judged unsharpened.",
    "CELL_AT_BORDER": "The cell lies at the edge of the image; part of its surroundings was mirrored.",
    "NOT_REGISTERED": "The cell could not be cut out and brought to standard size, so it was not judged.",
}

_NOTES: Final[Mapping[str, str]] = {
    "SCALED_FROM_16_BIT": "The image had 16 bits per channel and was scaled to 8.",
    "SCALED_FROM_14_BIT": "The image used 14 of 16 bits per channel, which were scaled to 8.",
    "SCALED_FROM_12_BIT": "The image used 12 of 16 bits per channel, which were scaled to 8.",
    "SCALED_FROM_10_BIT": "The image used 10 of 16 bits per channel, which were scaled to 8.",
    "SCALED_FROM_8_BIT": "The image used 8 of 16 bits per channel, which were taken.",
    "COLOURS_DOUBTED": "The colours cannot be those of a stain; do not rely on this answer.",
    "SCALE_DOUBTED": "The scale that was given contradicts the size of the red cells; their size was used.",
    "ORIENTATION_APPLIED": "The image was turned upright as its camera recorded.",
    "ALPHA_DROPPED": "An opaque transparency channel was dropped.",
    "SPARSE_TILES": "The slide leaves out tiles; they were taken for empty glass.",
    "PHANTOM": "This is a drawing with no patient behind it.",
}

_PREDICTIONS: Final[Mapping[frozenset[str], str]] = {
    frozenset(): "none: the cell is typical of neither class",
    frozenset({"blast"}): "blast only; “normal” is excluded",
    frozenset({"normal"}): "normal only; “blast” is excluded",
    frozenset({"normal", "blast"}): "normal or blast; neither is excluded",
}

_KINDS: Final[Mapping[int, str]] = {
    imaging_pb2.IMAGE_KIND_CELL: "single cell",
    imaging_pb2.IMAGE_KIND_FIELD: "field of cells",
}


def target_words(detects: int) -> str:
    """What a release detects, in the singular."""
    return _TARGETS.get(detects, "blast of a kind that the answer does not name")


def finding_words(finding: int, detects: int) -> FindingWords:
    """Put a finding in words.

    Args:
        finding: ``diagnosis_pb2.Finding``; unknown values are shown as numbers.
        detects: ``diagnosis_pb2.Detects``.
    """
    target = target_words(detects)
    lineage = _LINEAGE.get(detects, _NO_LINEAGE)
    if finding == diagnosis_pb2.FINDING_BLASTS_SUSPECTED:
        return FindingWords(
            "suspected",
            "Blasts suspected",
            f"More cells look like a blast ({target}) than false alarms explain.",
            "A qualified reader should look at the marked cells of this smear without delay.",
            f"It is no diagnosis of leukaemia. Reactive and immature cells can look alike. {lineage}",
        )
    if finding == diagnosis_pb2.FINDING_NO_BLASTS_SEEN:
        return FindingWords(
            "clear",
            "No blasts seen",
            f"Enough cells were judged, and the share that could be a blast ({target}) stays below the limit of the release.",
            "Too few cells could be blasts to reach the limit of the release. A cell that is marked as suspected still deserves a look.",
            f"It does not show that the patient is free of leukaemia: other fields, other smears and the marrow were not seen. {lineage}",
        )
    if finding == diagnosis_pb2.FINDING_INDETERMINATE:
        return FindingWords(
            "indeterminate",
            "Indeterminate",
            f"The image neither shows enough suspected cells to report blasts ({target}) nor enough clear cells to exclude them.",
            "The question stays open and goes to a qualified reader; the reasons are below.",
            f"It is neither an all-clear nor a suspicion. {lineage}",
        )
    title = "No finding given" if finding == diagnosis_pb2.FINDING_UNSPECIFIED else f"Unknown finding ({finding})"
    return FindingWords("indeterminate", title, "The answer holds no finding that this report knows.", "A qualified reader must look.", lineage)


def count_words(counts: diagnosis_pb2.CellCounts) -> str:
    """Say how many cells were counted as what."""
    if counts.total == 0:
        return "No nucleated cell was counted."
    head = "1 nucleated cell was counted" if counts.total == 1 else f"{counts.total} nucleated cells were counted"
    verb = {True: "is", False: "are"}
    return (
        f"{head}: {counts.suspected} {verb[counts.suspected == 1]} suspected, {counts.indeterminate} {verb[counts.indeterminate == 1]} indeterminate, "
        f"{counts.not_suspected} {verb[counts.not_suspected == 1]} not suspected."
    )


def image_reasons(codes: Sequence[str]) -> tuple[ReasonWords, ...]:
    """Translate the reasons of an image."""
    return tuple(ReasonWords(code, _IMAGE_REASONS.get(code, "")) for code in codes)


def cell_reasons(codes: Sequence[str]) -> tuple[ReasonWords, ...]:
    """Translate the reasons of a cell."""
    return tuple(ReasonWords(code, _CELL_REASONS.get(code, "")) for code in codes)


def patch_words(patches: Sequence[diagnosis_pb2.PatchDiagnosis]) -> str:
    """How many patches show what; empty where none were judged."""
    if not patches:
        return ""
    blasts, others = sum(p.blast_present for p in patches), sum(p.other_present for p in patches)
    return f"{len(patches)} patches: {blasts} show a blast, {others} another nucleated cell; the cells lie where the network of patches sees some"


def note_words(codes: Sequence[str]) -> tuple[ReasonWords, ...]:
    """Translate the notes on an image's quality."""
    return tuple(ReasonWords(code, _NOTES.get(code, "")) for code in codes)


def kind_words(kind: int) -> str:
    """What an image was taken for."""
    return _KINDS.get(kind, "not said")


def prediction_words(classes: Collection[str], judged: bool) -> str:
    """Put a prediction set in words."""
    if not judged:
        return f"{NOT_JUDGED}; neither class is excluded"
    return _PREDICTIONS.get(frozenset(classes), ", ".join(sorted(classes)))


def percent(share: float, decimals: int = 0) -> str:
    """A share 0..1 in percent, never rounded to 0 or 100 %; "not judged" where it is not a number."""
    if not math.isfinite(share):
        return NOT_JUDGED
    unit = 10.0**-decimals
    value = 100.0 * share
    if 0.0 < value < unit / 2:
        return f"below {unit:g}{SPACE}%"
    if 100.0 - unit / 2 < value < 100.0:
        return f"above {100.0 - unit:g}{SPACE}%"
    return f"{value:.{decimals}f}{SPACE}%"


def number(value: float, decimals: int) -> str:
    """A number, or "not measured" where it is not finite."""
    return f"{value:.{decimals}f}" if math.isfinite(value) else "not measured"
