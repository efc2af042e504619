"""The verdict on one cell: probability of network and neighbours fused, prediction set, and reasons not to decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from services.common.cell_classes import BLAST, BLAST_COLUMN, NORMAL, NORMAL_COLUMN, NOTHING_COLUMN


class CellReason(StrEnum):
    """Why a cell is indeterminate."""

    BOTH_CLASSES_POSSIBLE = "BOTH_CLASSES_POSSIBLE"
    NO_CLASS_TYPICAL = "NO_CLASS_TYPICAL"
    NETWORK_AND_NEIGHBOURS_DISAGREE = "NETWORK_AND_NEIGHBOURS_DISAGREE"
    NOT_REGISTERED = "NOT_REGISTERED"
    NO_CELL_SEEN = "NO_CELL_SEEN"


@dataclass(frozen=True)
class CellRule:
    """Numbers of a release that judge one cell.

    Attributes:
        network_weight: weight 0..1 of the network in the fused probability.
        min_probability: per class, the smallest fused probability of it that keeps it in the prediction set.
        max_disagreement: above this |network - vote| the two disagree.
        min_nothing: probability of no cell from which on a cell is indeterminate.
    """

    network_weight: float
    min_probability: Mapping[str, float]
    max_disagreement: float
    min_nothing: float = 0.5


@dataclass(frozen=True)
class CellVerdict:
    """The verdict on one cell.

    Attributes:
        probability: fused probability 0..1 of a blast.
        prediction_set: classes that cannot be excluded, of ``NORMAL`` and ``BLAST``.
        suspected: only ``BLAST`` remains and nothing speaks against judging.
        indeterminate: neither suspected nor clear; the reasons say why.
        reasons: why the cell is indeterminate, or what is poor.
    """

    probability: float
    prediction_set: tuple[str, ...]
    suspected: bool
    indeterminate: bool
    reasons: tuple[str, ...]


def blast_probability(logits: ArrayLike) -> NDArray[np.float64]:
    """Probability of a blast, given that there is a cell: softmax over the first two of temperature-scaled logits (..., 2 or 3)."""
    values = np.asarray(logits, np.float64)
    return np.asarray(1.0 / (1.0 + np.exp(np.clip(values[..., NORMAL_COLUMN] - values[..., BLAST_COLUMN], -700, 700))), np.float64)


def nothing_probability(logits: ArrayLike) -> NDArray[np.float64]:
    """Softmax probability that no nucleated cell is there, from temperature-scaled logits (..., 3); NaN for (..., 2), which lack this class."""
    values = np.asarray(logits, np.float64)
    if values.shape[-1] <= NOTHING_COLUMN:
        return np.full(values.shape[:-1], np.nan)
    exponents = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(exponents[..., NOTHING_COLUMN] / exponents.sum(axis=-1), np.float64)


def fuse(network: ArrayLike, vote: ArrayLike, network_weight: float) -> NDArray[np.float64]:
    """Linear pool of network probability and neighbour vote: ``w network + (1 - w) vote``."""
    return np.asarray(network_weight * np.asarray(network, np.float64) + (1.0 - network_weight) * np.asarray(vote, np.float64))


def prediction_set(probability: float, min_probability: Mapping[str, float]) -> tuple[str, ...]:
    """Classes whose fused probability reaches the release's conformal threshold."""
    per_class = ((NORMAL, 1.0 - probability), (BLAST, probability))
    return tuple(name for name, p in per_class if p >= min_probability[name])


def judge_cell(
    network: float, vote: float, accepted: bool, quality_reasons: Sequence[str], rule: CellRule, nothing: float = float("nan")
) -> CellVerdict:
    """Judge one cell.

    Args:
        network: probability of the network, 0..1.
        vote: neighbour vote, 0..1.
        accepted: whether preprocessing lets a network judge this cell.
        quality_reasons: reasons that preprocessing gave.
        rule: numbers of the release.
        nothing: probability that there is no nucleated cell, 0..1; NaN where the release has no such class.
    """
    probability = float(fuse(network, vote, rule.network_weight))
    remaining = prediction_set(probability, rule.min_probability)
    reasons = list(quality_reasons)
    if len(remaining) == 2:
        reasons.append(CellReason.BOTH_CLASSES_POSSIBLE)
    elif not remaining:
        reasons.append(CellReason.NO_CLASS_TYPICAL)
    disagree = abs(network - vote) > rule.max_disagreement
    if disagree:
        reasons.append(CellReason.NETWORK_AND_NEIGHBOURS_DISAGREE)
    empty = nothing >= rule.min_nothing
    if empty:
        reasons.append(CellReason.NO_CELL_SEEN)
    indeterminate = not accepted or disagree or empty or len(remaining) != 1
    return CellVerdict(probability, remaining, remaining == (BLAST,) and not indeterminate, indeterminate, tuple(reasons))


def unjudged_cell() -> CellVerdict:
    """Verdict of a cell that could not be registered."""
    return CellVerdict(float("nan"), (NORMAL, BLAST), False, True, (CellReason.NOT_REGISTERED,))
