"""The way to a finding, step by step, with the numbers of the rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clients.cli.report.words import percent
from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all.imaging.v1 import imaging_pb2


@dataclass(frozen=True)
class DecisionStep:
    """One question of the decision rule.

    Attributes:
        question: what is asked.
        numbers: the numbers that answer it.
        holds: the answer.
        follows: what follows from the answer.
    """

    question: str
    numbers: str
    holds: bool
    follows: str


def decision_steps(diagnosis: diagnosis_pb2.Diagnosis) -> tuple[DecisionStep, ...]:
    """The steps that led to a finding; empty where the answer carries no rule or no cell was counted."""
    if not diagnosis.HasField("rule") or diagnosis.counts.total == 0:
        return ()
    suspicion = _suspicion(diagnosis)
    if suspicion.holds:
        return (suspicion,)
    steps = [suspicion]
    if diagnosis.kind == imaging_pb2.IMAGE_KIND_CELL:
        steps.append(
            DecisionStep("Does the image show more than one cell?", "it was taken for a single cell", False, "“no blasts seen” cannot be said")
        )
    return (*steps, _enough_cells(diagnosis), _fraction_excluded(diagnosis))


def finding_of(steps: Sequence[DecisionStep]) -> int:
    """The finding to which steps lead."""
    suspicion, *others = steps
    if suspicion.holds:
        return diagnosis_pb2.FINDING_BLASTS_SUSPECTED
    return diagnosis_pb2.FINDING_NO_BLASTS_SEEN if all(step.holds for step in others) else diagnosis_pb2.FINDING_INDETERMINATE


def _suspicion(diagnosis: diagnosis_pb2.Diagnosis) -> DecisionStep:
    limit, suspected = diagnosis.rule.false_blast_quantile, diagnosis.counts.suspected
    holds = suspected > limit
    return DecisionStep(
        "Are more cells suspected than false alarms explain?",
        f"{suspected} suspected; false alarms alone exceed {limit} in at most 1\u00a0% of images with this many cells",
        holds,
        "blasts suspected" if holds else "no suspicion, so it is asked whether blasts can be called absent",
    )


def _enough_cells(diagnosis: diagnosis_pb2.Diagnosis) -> DecisionStep:
    needed, total = diagnosis.rule.min_cells_for_negative, diagnosis.counts.total
    holds = total >= needed
    return DecisionStep(
        "Were enough cells counted?",
        f"{total} counted; at least {needed} needed",
        holds,
        "enough cells" if holds else "“no blasts seen” cannot be said",
    )


def _fraction_excluded(diagnosis: diagnosis_pb2.Diagnosis) -> DecisionStep:
    limit, upper = diagnosis.rule.max_fraction_for_negative, diagnosis.blast_fraction.upper
    holds = upper < limit
    return DecisionStep(
        "Is the highest possible share of blasts below the limit?",
        f"at most {percent(upper, 1)}, every indeterminate cell taken for a blast; must be below {percent(limit, 1)}",
        holds,
        "a larger share is excluded" if holds else "“no blasts seen” cannot be said",
    )
