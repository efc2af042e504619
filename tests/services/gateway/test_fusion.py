"""Tests of the verdict on one cell."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.cell_classes import BLAST, NORMAL
from services.gateway.fusion import CellReason, CellRule, blast_probability, fuse, judge_cell, nothing_probability, prediction_set, unjudged_cell

RULE = CellRule(network_weight=0.75, min_probability={NORMAL: 0.3, BLAST: 0.4}, max_disagreement=0.6)
shares = st.floats(0.0, 1.0)
rules = st.builds(CellRule, network_weight=shares, min_probability=st.fixed_dictionaries({NORMAL: shares, BLAST: shares}), max_disagreement=shares)


def test_blast_probability_is_the_softmax() -> None:
    logits = np.array([[0.0, 0.0], [1.0, 3.0], [2.0, -1.0]])
    expected = np.exp(logits[:, 1]) / np.exp(logits).sum(axis=1)
    np.testing.assert_allclose(blast_probability(logits), expected, rtol=1e-12)


def test_blast_probability_of_extreme_logits() -> None:
    found = blast_probability(np.array([[1e6, -1e6], [-1e6, 1e6], [1e300, -1e300]]))
    np.testing.assert_allclose(found, [0, 1, 0], atol=1e-300)


def test_fuse_by_hand() -> None:
    np.testing.assert_allclose(fuse([0.8, 0.0, 1.0], [0.4, 1.0, 1.0], 0.75), [0.7, 0.25, 1.0])


@pytest.mark.parametrize(
    ("probability", "expected"),
    [(0.0, (NORMAL,)), (0.39, (NORMAL,)), (0.4, (NORMAL, BLAST)), (0.7, (NORMAL, BLAST)), (0.71, (BLAST,)), (1.0, (BLAST,))],
)
def test_prediction_set(probability: float, expected: tuple[str, ...]) -> None:
    assert prediction_set(probability, RULE.min_probability) == expected


def test_a_clear_blast_is_suspected() -> None:
    verdict = judge_cell(0.96, 0.8, True, (), RULE)
    assert verdict.probability == pytest.approx(0.92)
    assert (verdict.prediction_set, verdict.suspected, verdict.indeterminate, verdict.reasons) == ((BLAST,), True, False, ())


def test_a_clear_normal_cell_is_decided() -> None:
    verdict = judge_cell(0.04, 0.2, True, (), RULE)
    assert verdict.probability == pytest.approx(0.08)
    assert (verdict.prediction_set, verdict.suspected, verdict.indeterminate, verdict.reasons) == ((NORMAL,), False, False, ())


def test_both_classes_possible() -> None:
    verdict = judge_cell(0.5, 0.5, True, (), RULE)
    assert (verdict.prediction_set, verdict.suspected, verdict.indeterminate) == ((NORMAL, BLAST), False, True)
    assert verdict.reasons == (CellReason.BOTH_CLASSES_POSSIBLE,)


def test_no_class_typical() -> None:
    strict = CellRule(0.75, {NORMAL: 0.9, BLAST: 0.9}, 1.0)
    verdict = judge_cell(0.5, 0.5, True, (), strict)
    assert (verdict.prediction_set, verdict.suspected, verdict.indeterminate) == ((), False, True)
    assert verdict.reasons == (CellReason.NO_CLASS_TYPICAL,)


def test_network_and_neighbours_disagree() -> None:
    rule = CellRule(0.75, {NORMAL: 0.3, BLAST: 0.4}, 0.5)
    verdict = judge_cell(1.0, 0.25, True, (), rule)
    assert (verdict.prediction_set, verdict.suspected, verdict.indeterminate) == ((BLAST,), False, True)
    assert verdict.reasons == (CellReason.NETWORK_AND_NEIGHBOURS_DISAGREE,)
    # The largest difference that is not a disagreement is allowed.
    assert judge_cell(1.0, 0.5, True, (), rule).suspected
    assert judge_cell(0.25, 1.0, True, (), rule).reasons == (CellReason.BOTH_CLASSES_POSSIBLE, CellReason.NETWORK_AND_NEIGHBOURS_DISAGREE)


def test_a_cell_that_is_not_accepted_is_indeterminate_however_sure() -> None:
    verdict = judge_cell(1.0, 1.0, False, ("POOR_FOCUS",), RULE)
    assert (verdict.prediction_set, verdict.suspected, verdict.indeterminate, verdict.reasons) == ((BLAST,), False, True, ("POOR_FOCUS",))


def test_what_is_poor_is_named_first_and_does_not_decide() -> None:
    verdict = judge_cell(1.0, 1.0, True, ("SHARPENING_FAILED",), RULE)
    assert (verdict.suspected, verdict.reasons) == (True, ("SHARPENING_FAILED",))
    assert judge_cell(0.5, 0.5, True, ("CELL_AT_BORDER",), RULE).reasons == ("CELL_AT_BORDER", CellReason.BOTH_CLASSES_POSSIBLE)


def test_what_is_not_a_number_is_never_decided() -> None:
    verdict = judge_cell(math.nan, 0.5, True, (), RULE)
    assert verdict.indeterminate
    assert not verdict.suspected


def test_a_cell_that_was_not_registered() -> None:
    verdict = unjudged_cell()
    assert math.isnan(verdict.probability)
    assert (verdict.prediction_set, verdict.suspected, verdict.indeterminate) == ((NORMAL, BLAST), False, True)
    assert verdict.reasons == (CellReason.NOT_REGISTERED,)


@given(shares, shares, st.booleans(), st.lists(st.sampled_from(["POOR_FOCUS", "LOW_RESOLUTION"]), unique=True), rules)
def test_properties_of_a_verdict(network: float, vote: float, accepted: bool, reasons: list[str], rule: CellRule) -> None:
    verdict = judge_cell(network, vote, accepted, reasons, rule)
    assert min(network, vote) - 1e-12 <= verdict.probability <= max(network, vote) + 1e-12
    assert not (verdict.suspected and verdict.indeterminate)
    assert verdict.suspected <= (verdict.prediction_set == (BLAST,))
    assert verdict.suspected <= accepted
    decided = accepted and len(verdict.prediction_set) == 1 and abs(network - vote) <= rule.max_disagreement
    assert verdict.indeterminate == (not decided)
    # Every indeterminate cell has a reason: its own or one of preprocessing.
    assert verdict.reasons or not verdict.indeterminate or not accepted


@given(shares, shares, shares, rules)
def test_more_blast_never_removes_blast_from_the_set(vote: float, one: float, two: float, rule: CellRule) -> None:
    low, high = sorted((one, two))
    less, more = judge_cell(low, vote, True, (), rule), judge_cell(high, vote, True, (), rule)
    assert less.probability <= more.probability + 1e-12
    if less.probability < more.probability:
        assert (BLAST in less.prediction_set) <= (BLAST in more.prediction_set)
        assert (NORMAL in more.prediction_set) <= (NORMAL in less.prediction_set)


def test_where_no_cell_is_seen_nothing_is_decided() -> None:
    sure = judge_cell(0.96, 0.9, True, (), RULE, nothing=0.49)
    assert sure.suspected
    empty = judge_cell(0.96, 0.9, True, (), RULE, nothing=0.5)
    assert empty.indeterminate
    assert not empty.suspected
    assert empty.reasons == (CellReason.NO_CELL_SEEN,)
    assert empty.probability == sure.probability


def test_the_probability_of_no_cell_is_that_of_the_third_class() -> None:
    np.testing.assert_allclose(nothing_probability([[0.0, 0.0, 0.0], [1000.0, 0.0, 0.0], [0.0, 0.0, 1000.0]]), [1 / 3, 0.0, 1.0])
    assert np.isnan(nothing_probability([[1.0, 2.0], [3.0, 4.0]])).all()
    assert blast_probability([1.0, 3.0, 50.0]) == blast_probability([1.0, 3.0])
