"""Tests of the decision per image."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.decision import (
    Counts,
    Finding,
    ImageRule,
    Reason,
    SpecimenImages,
    blast_fraction,
    decide,
    decide_specimen,
    false_blast_quantile,
)

TABLE = ((1, 0), (10, 1), (100, 3), (200, 5))
RULE = ImageRule(TABLE, min_cells_for_negative=100, max_fraction_for_negative=0.05, trained_on_lymphoblasts=True)


@st.composite
def counts(draw: st.DrawFn) -> Counts:
    total = draw(st.integers(0, 400))
    suspected = draw(st.integers(0, total))
    return Counts(total, suspected, draw(st.integers(0, total - suspected)))


@st.composite
def rules(draw: st.DrawFn) -> ImageRule:
    sizes = sorted(draw(st.sets(st.integers(1, 500), min_size=1, max_size=5)))
    quantiles = sorted(draw(st.lists(st.integers(0, 20), min_size=len(sizes), max_size=len(sizes))))
    return ImageRule(tuple(zip(sizes, quantiles, strict=True)), draw(st.integers(1, 300)), draw(st.floats(0, 1)), draw(st.booleans()))


def test_counts_add_up() -> None:
    total = Counts(10, 2, 3) + Counts(5, 1, 0)
    assert total == Counts(15, 3, 3)
    assert total.not_suspected == 9


@pytest.mark.parametrize(
    ("given", "expected"), [(Counts(0, 0, 0), (0, 1)), (Counts(10, 2, 3), (0.2, 0.5)), (Counts(4, 0, 0), (0, 0)), (Counts(4, 4, 0), (1, 1))]
)
def test_blast_fraction(given: Counts, expected: tuple[float, float]) -> None:
    assert blast_fraction(given) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("cells", "expected"),
    # In the table; between two entries, where the larger holds; beyond the last entry, where its share of 2.5 % holds, rounded up.
    [(0, 0), (1, 0), (2, 1), (10, 1), (11, 3), (100, 3), (101, 5), (200, 5), (201, 6), (240, 6), (241, 7), (400, 10)],
)
def test_false_blast_quantile(cells: int, expected: int) -> None:
    assert false_blast_quantile(cells, TABLE) == expected


def test_false_blasts_are_not_more_than_the_cells() -> None:
    assert false_blast_quantile(2, ((10, 5),)) == 2


def test_no_cells() -> None:
    decision = decide(Counts(0, 0, 0), RULE)
    assert (decision.finding, decision.reasons, decision.requires_review) == (Finding.INDETERMINATE, (Reason.NO_CELLS,), True)
    assert (decision.lower, decision.upper, decision.false_blast_quantile) == (0.0, 1.0, 0)


def test_suspected_cells_above_chance() -> None:
    decision = decide(Counts(100, 4, 90), RULE)
    assert (decision.finding, decision.reasons, decision.requires_review) == (Finding.BLASTS_SUSPECTED, (Reason.SUSPECTED_CELLS_ABOVE_CHANCE,), True)
    assert (decision.lower, decision.upper) == pytest.approx((0.04, 0.94))
    assert decision.false_blast_quantile == 3


def test_suspected_cells_within_chance_do_not_hinder_a_negative() -> None:
    decision = decide(Counts(100, 3, 0), RULE)
    assert (decision.finding, decision.reasons) == (Finding.NO_BLASTS_SEEN, (Reason.SUSPECTED_CELLS_WITHIN_CHANCE,))
    assert not decision.requires_review


def test_a_clean_negative_has_no_reasons() -> None:
    decision = decide(Counts(100, 0, 4), RULE)
    assert (decision.finding, decision.reasons, decision.requires_review) == (Finding.NO_BLASTS_SEEN, (), False)


def test_blast_fraction_not_excluded() -> None:
    decision = decide(Counts(100, 0, 5), RULE)
    assert (decision.finding, decision.reasons) == (Finding.INDETERMINATE, (Reason.BLAST_FRACTION_NOT_EXCLUDED,))
    assert decision.requires_review


def test_too_few_cells() -> None:
    decision = decide(Counts(99, 0, 0), RULE)
    assert (decision.finding, decision.reasons) == (Finding.INDETERMINATE, (Reason.TOO_FEW_CELLS,))


def test_most_cells_indeterminate() -> None:
    fraction = (Reason.BLAST_FRACTION_NOT_EXCLUDED,)
    assert decide(Counts(100, 0, 50), RULE).reasons == fraction
    assert decide(Counts(100, 0, 51), RULE).reasons == (Reason.MOST_CELLS_INDETERMINATE, *fraction)


def test_a_single_cell_is_never_negative_and_may_be_suspected() -> None:
    lenient = dataclasses.replace(RULE, min_cells_for_negative=1)
    assert decide(Counts(1, 0, 0), lenient).finding is Finding.NO_BLASTS_SEEN
    decision = decide(Counts(1, 0, 0), lenient, single_cell=True)
    assert (decision.finding, decision.reasons) == (Finding.INDETERMINATE, (Reason.SINGLE_CELL,))
    assert decide(Counts(1, 1, 0), RULE, single_cell=True).finding is Finding.BLASTS_SUSPECTED
    assert decide(Counts(1, 0, 1), RULE, single_cell=True).reasons == (
        Reason.SINGLE_CELL,
        Reason.TOO_FEW_CELLS,
        Reason.MOST_CELLS_INDETERMINATE,
        Reason.BLAST_FRACTION_NOT_EXCLUDED,
    )


def test_what_always_needs_a_reader() -> None:
    clean = Counts(100, 0, 0)
    myeloid = decide(clean, dataclasses.replace(RULE, trained_on_lymphoblasts=False))
    assert (myeloid.finding, myeloid.reasons, myeloid.requires_review) == (Finding.NO_BLASTS_SEEN, (Reason.MODEL_NOT_TRAINED_ON_LYMPHOBLASTS,), True)
    phantom = decide(clean, RULE, phantom=True)
    assert (phantom.finding, phantom.reasons, phantom.requires_review) == (Finding.NO_BLASTS_SEEN, (Reason.PHANTOM,), True)


def test_a_poor_image_is_never_negative_and_may_be_suspected() -> None:
    poor = decide(Counts(100, 0, 0), RULE, poor=(Reason.IMAGE_BLURRED,))
    assert (poor.finding, poor.reasons, poor.requires_review) == (Finding.INDETERMINATE, (Reason.IMAGE_BLURRED,), True)
    suspected = decide(Counts(100, 50, 0), RULE, poor=(Reason.CELLS_CROWDED,))
    assert (suspected.finding, suspected.reasons) == (Finding.BLASTS_SUSPECTED, (Reason.SUSPECTED_CELLS_ABOVE_CHANCE, Reason.CELLS_CROWDED))


CLEAN = Counts(200, 0, 0)


def test_a_specimen_of_clean_images_is_negative() -> None:
    decision = decide_specimen(SpecimenImages(CLEAN, CLEAN), RULE)
    assert (decision.finding, decision.reasons, decision.requires_review) == (Finding.NO_BLASTS_SEEN, (), False)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [({"suspected": 1}, Reason.BLASTS_SUSPECTED_IN_IMAGES), ({"failed": 1}, Reason.IMAGES_FAILED)],
)
def test_an_image_with_suspected_blasts_or_a_failed_one_bars_a_negative(changed: dict[str, Any], reason: Reason) -> None:
    decision = decide_specimen(SpecimenImages(CLEAN, CLEAN, **changed), RULE)
    assert (decision.finding, decision.reasons, decision.requires_review) == (Finding.INDETERMINATE, (reason,), True)
    many = decide_specimen(SpecimenImages(Counts(200, 50, 0), Counts(200, 50, 0), **changed), RULE)
    assert (many.finding, many.reasons) == (Finding.BLASTS_SUSPECTED, (Reason.SUSPECTED_CELLS_ABOVE_CHANCE, reason))


def test_a_negative_must_hold_without_the_poor_images() -> None:
    enough = decide_specimen(SpecimenImages(CLEAN, Counts(100, 0, 0), poor=1), RULE)
    assert (enough.finding, enough.reasons, enough.requires_review) == (Finding.NO_BLASTS_SEEN, (Reason.POOR_IMAGES,), True)
    too_few = decide_specimen(SpecimenImages(CLEAN, Counts(99, 0, 0), poor=1), RULE)
    assert (too_few.finding, too_few.reasons) == (Finding.INDETERMINATE, (Reason.TOO_FEW_CELLS, Reason.POOR_IMAGES))
    all_poor = decide_specimen(SpecimenImages(CLEAN, poor=2), RULE)
    assert all_poor.finding is Finding.INDETERMINATE
    indeterminate = decide_specimen(SpecimenImages(Counts(400, 0, 8), Counts(100, 0, 8), poor=1), RULE)
    assert (indeterminate.finding, indeterminate.upper) == (Finding.INDETERMINATE, 0.02)
    assert indeterminate.reasons == (Reason.BLAST_FRACTION_NOT_EXCLUDED, Reason.POOR_IMAGES)


def test_an_empty_specimen_says_why() -> None:
    decision = decide_specimen(SpecimenImages(failed=2), RULE)
    assert (decision.finding, decision.reasons) == (Finding.INDETERMINATE, (Reason.NO_CELLS, Reason.IMAGES_FAILED))


@given(st.lists(st.tuples(counts(), st.booleans()), max_size=6), rules(), st.integers(0, 2))
def test_a_specimen_is_never_negative_where_its_images_say_otherwise(images: list[tuple[Counts, bool]], rule: ImageRule, failed: int) -> None:
    singly = [decide(cells, rule, poor=(Reason.IMAGE_BLURRED,) if poor else ()) for cells, poor in images]
    specimen = SpecimenImages(
        sum((cells for cells, _ in images), Counts(0, 0, 0)),
        sum((cells for cells, poor in images if not poor), Counts(0, 0, 0)),
        sum(d.finding is Finding.BLASTS_SUSPECTED for d in singly),
        failed,
        sum(poor for _, poor in images),
    )
    decision = decide_specimen(specimen, rule)
    if decision.finding is Finding.NO_BLASTS_SEEN:
        assert not failed
        assert all(d.finding is not Finding.BLASTS_SUSPECTED for d in singly)
        assert decide(specimen.clear, rule).finding is Finding.NO_BLASTS_SEEN
    assert decision.requires_review or (rule.trained_on_lymphoblasts and not specimen.poor and decision.finding is Finding.NO_BLASTS_SEEN)


@given(counts(), rules(), st.booleans(), st.booleans())
def test_properties_of_a_decision(cells: Counts, rule: ImageRule, phantom: bool, single: bool) -> None:
    decision = decide(cells, rule, phantom=phantom, single_cell=single)
    assert 0 <= decision.lower <= decision.upper <= 1
    assert decision.false_blast_quantile >= 0
    assert (decision.finding is Finding.BLASTS_SUSPECTED) == (cells.suspected > decision.false_blast_quantile)
    if decision.finding is Finding.NO_BLASTS_SEEN:
        assert not single
        assert cells.total >= rule.min_cells_for_negative
        assert decision.upper < rule.max_fraction_for_negative
        assert decision.requires_review == (phantom or not rule.trained_on_lymphoblasts)
    else:
        assert decision.requires_review
        assert decision.reasons
    assert len(set(decision.reasons)) == len(decision.reasons)


@given(counts(), st.integers(1, 50))
def test_indeterminate_cells_never_lower_the_upper_bound(cells: Counts, more: int) -> None:
    lower, upper = blast_fraction(cells)
    new_lower, new_upper = blast_fraction(cells + Counts(more, 0, more))
    assert new_upper >= upper - 1e-12
    assert new_lower <= lower + 1e-12


@given(counts(), rules(), st.integers(1, 50))
def test_indeterminate_cells_never_make_a_negative(cells: Counts, rule: ImageRule, more: int) -> None:
    if cells.total >= rule.min_cells_for_negative and decide(cells, rule).finding is Finding.INDETERMINATE:
        assert decide(cells + Counts(more, 0, more), rule).finding is not Finding.NO_BLASTS_SEEN
