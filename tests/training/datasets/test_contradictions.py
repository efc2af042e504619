"""The same picture with two labels or of two patients."""

from __future__ import annotations

import pytest

from training.datasets.contradictions import Said, refuse_contradictions
from training.datasets.dataset import GroupKind
from training.errors import DatasetError

A = Said("a.png", 1, "P1")


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (Said("b.png", 0, "P1"), "a.png and b.png: once a blast, once normal"),
        (Said("b.png", 1, "P2"), "a.png and b.png: of P1 and of P2"),
        (Said("b.png", None, "P2"), "a.png and b.png: of P1 and of P2"),
        (Said("b\n.png", 0, "P2"), "a.png and b\ufffd.png: once a blast, once normal"),
        (Said("a.png", 0, "P1"), "a.png and a.png"),
    ],
)
def test_both_files_are_named(other: Said, words: str) -> None:
    with pytest.raises(DatasetError, match=words):
        refuse_contradictions([A, other], ["x", "x"], GroupKind.PATIENT, "own_cells")


@pytest.mark.parametrize("other", [Said("b.png", 1, "P1"), A, Said("b.png", None, "P1")])
def test_a_copy_of_which_nothing_else_is_said_is_taken(other: Said) -> None:
    refuse_contradictions([A, other], ["x", "x"], GroupKind.PATIENT, "own_cells")


def test_pictures_that_differ_and_pictures_of_which_nothing_is_known_are_taken() -> None:
    refuse_contradictions([A, Said("b.png", 0, "P2")], ["x", "y"], GroupKind.PATIENT, "own_cells")
    refuse_contradictions([A, Said("b.png", 0, "P2")], ["", ""], GroupKind.PATIENT, "own_cells")


@pytest.mark.parametrize("kind", [GroupKind.BLOCK, GroupKind.FIELD, GroupKind.NONE, GroupKind.SLIDE])
def test_groups_that_are_no_people_may_share_a_picture(kind: GroupKind) -> None:
    refuse_contradictions([A, Said("b.png", 1, "P2")], ["x", "x"], kind, "some")
    with pytest.raises(DatasetError, match="once a blast"):
        refuse_contradictions([A, Said("b.png", 0, "P2")], ["x", "x"], kind, "some")


def test_a_third_copy_is_held_against_all_before_and_many_are_counted() -> None:
    said = [Said("a", None, "P1"), Said("b", 1, "P1"), Said("c", 0, "P1"), *(Said(f"d{i}", 0, "P1") for i in range(9))]
    with pytest.raises(DatasetError, match=r"(?s)b and c: once a blast.*and 5 more"):
        refuse_contradictions(said, ["x"] * 12, GroupKind.SUBJECT, "some")
