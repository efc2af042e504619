"""Tests of the recipe of the locator: the shipped one, changes, and what is refused."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from training.errors import RecipeError
from training.location.recipe import is_locator, load_locator_recipe
from training.location.samples import RED_CELL_RADIUS
from training.location.sources import SOURCES
from training.recipes.config import load_recipe


def test_the_shipped_recipe_gives_every_source_a_share() -> None:
    recipe = load_locator_recipe()
    assert set(recipe.shares) == set(SOURCES)
    assert sum(recipe.shares.values()) == pytest.approx(1.0)
    assert min(recipe.shares.values()) > 0
    assert recipe.windows.smallest < recipe.windows.largest <= RED_CELL_RADIUS


def test_the_switches_of_windows_are_their_changes() -> None:
    recipe = load_locator_recipe(["windows.smallest=7", "windows.noise=3.5", "windows.crowded=0.25"])
    changes = asdict(recipe.windows.changes)
    assert changes == {name: getattr(recipe.windows, name) for name in changes}
    assert set(changes) == set(type(recipe.windows).model_fields) - {"side"}
    assert (changes["smallest"], changes["noise"], changes["crowded"]) == (7.0, 3.5, 0.25)


def test_a_change_applies_and_leaves_the_others() -> None:
    shipped, changed = load_locator_recipe(), load_locator_recipe(["training.steps=7", "network.width=4", "shares.phantoms=0.5"])
    assert (changed.training.steps, changed.network.width, changed.shares["phantoms"]) == (7, 4, 0.5)
    assert changed.windows == shipped.windows
    assert changed.training.rate == shipped.training.rate
    assert load_locator_recipe() == shipped


@pytest.mark.parametrize(
    "change",
    [
        "training.momentum=0.9",
        "rooms.side=3",
        "network.width=2",
        "windows.side=100",
        "windows.largest=13",
        "training.steps=many",
        "training.steps",
        "=3",
    ],
)
def test_a_change_that_names_no_switch_or_does_not_fit_is_refused(change: str) -> None:
    with pytest.raises(RecipeError):
        load_locator_recipe([change])


@pytest.mark.parametrize(
    ("name", "expected"), [("locator", True), ("locator.toml", True), ("mine/locator.toml", True), ("dss", False), ("locators", False), ("", False)]
)
def test_the_name_tells_the_recipe(name: str, expected: bool) -> None:
    assert is_locator(name) is expected


def test_no_other_recipe_has_its_name() -> None:
    with pytest.raises(RecipeError):
        load_recipe("locator")
