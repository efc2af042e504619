"""Tests of the rows of the table of ALL-IDB: what each trains, and what its short form cuts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from training.evaluation.all_idb.rows import ROWS, Row
from training.recipes.config import PUBLISHED, Recipe, Stage, Start, load_recipe

FORMS = [(row, full) for row in ROWS for full in (True, False)]
CUT = [row for row in ROWS if row.cuts]


def _named(name: str) -> Row:
    (row,) = [row for row in ROWS if row.name == name]
    return row


def _trained_stages(recipe: Recipe) -> list[Stage]:
    source = recipe.pretraining if recipe.pretraining is not None and recipe.pretraining.enabled else None
    return [stage for stage in (source, recipe.warm_up, recipe.fine_tuning) if stage is not None]


def _flat(values: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {path: values}
    return {name: value for key, inner in values.items() for name, value in _flat(inner, f"{path}.{key}".lstrip(".")).items()}


def _differing(one: Recipe, other: Recipe) -> set[str]:
    first, second = (_flat(recipe.model_dump(mode="json", by_alias=False)) for recipe in (one, other))
    return {path for path in {*first, *second} if first.get(path) != second.get(path)}


def _switches(changes: Iterable[str]) -> set[str]:
    return {change.split("=")[0] for change in changes}


def _switched(paths: Iterable[str], switches: Iterable[str]) -> dict[str, set[str]]:
    """The paths that each switch sets; those that none sets stand under the empty name."""
    found: dict[str, set[str]] = {name: set() for name in switches}
    for path in paths:
        found.setdefault(next((name for name in found if name and f"{path}.".startswith(f"{name}.")), ""), set()).add(path)
    return found


def test_names_are_unique_and_one_folder_each() -> None:
    names = [row.name for row in ROWS]
    assert len(names) == len(set(names))
    assert not {f"{name}-short" for name in names} & set(names)
    assert not [name for name in names if "/" in name or name != name.lower()]


@pytest.mark.parametrize(("row", "full"), FORMS, ids=lambda value: getattr(value, "name", str(value)))
def test_a_row_trains_what_its_recipe_publishes(row: Row, full: bool) -> None:
    recipe = row.load(full=full)
    assert recipe.system == row.recipe
    assert row.learns_patches == (recipe.learns == "patches")
    assert row.needs_checkpoint == (recipe.start is Start.ALLNET)
    learns_tissue = (recipe.pretraining is not None and recipe.pretraining.enabled) or recipe.interleaving is not None
    assert row.source == ("lc25000_tiles" if learns_tissue else "")
    assert (row.sharpens is not None) == (row.recipe == "adaptive_unsharpening")


@pytest.mark.parametrize(("row", "full"), FORMS, ids=lambda value: getattr(value, "name", str(value)))
def test_the_network_of_imagenet_is_trained_as_it_can_be(row: Row, full: bool) -> None:
    recipe = row.load(full=full)
    if recipe.network.architecture == "efficientnet_lite0":
        assert {stage.orthogonality_weight for stage in _trained_stages(recipe)} == {0.0}, "it has no such convolutions"
        assert recipe.network.width == 64, "it has no width"
        assert "Lite0" in row.system + row.differs
    else:
        assert recipe.start is not Start.IMAGENET


@pytest.mark.parametrize("row", CUT, ids=lambda row: row.name)
def test_the_short_form_differs_in_exactly_the_switches_that_cut(row: Row) -> None:
    switches = _switches(row.cuts)
    assert len(switches) == len(row.cuts)
    found = _switched(_differing(row.load(full=True), row.load(full=False)), switches)
    assert set(found) == switches, f"{found.get('')} differ and are not named"
    idle = {name for name, paths in found.items() if not paths}
    assert not idle, "switches that cut nothing"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_full_form_differs_from_the_published_preset_in_the_changes_alone(row: Row) -> None:
    found = _switched(_differing(load_recipe(row.recipe, PUBLISHED), row.load(full=True)), _switches(row.changes))
    assert not found.get("")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_what_is_cut_is_said(row: Row) -> None:
    assert bool(row.cut) == bool(row.cuts)
    if row.cuts:
        full, short = row.load(full=True).fine_tuning, row.load(full=False).fine_tuning
        assert f"{short.input.side} px for {full.input.side}" in row.cut
        assert f"{short.epochs} epochs" in row.cut
        assert f"for {full.epochs}" in row.cut
        assert short.batch == full.batch


def test_the_row_of_system_3_is_the_papers_own() -> None:
    (row,) = [row for row in ROWS if row.recipe == "allnet"]
    assert row is ROWS[0]
    assert not row.cuts
    assert row.needs_checkpoint
    assert row.load(full=False) == row.load(full=True)
    recipe = row.load(full=False)
    assert recipe.start is Start.ALLNET
    assert recipe.network.architecture == "resnet18_lbp"
    assert recipe.pretraining is not None
    assert not recipe.pretraining.enabled
    stage = recipe.fine_tuning
    assert (stage.epochs, stage.batch, stage.input.side, stage.input.center_crop) == (100, 32, 224, 256)
    assert (recipe.split.by, recipe.split.repetitions, recipe.split.shares) == ("image", 5, (0.4, 0.1, 0.5))


@pytest.mark.parametrize("full", [True, False])
def test_splits_are_the_papers_in_both_forms(full: bool) -> None:
    for name in ("s1-original", "s1-sharpened"):
        split = _named(name).load(full=full).split
        assert (split.by, split.repetitions, split.shares) == ("image", 10, (0.5, 0.0, 0.5))
    system_2 = [row for row in ROWS if row.recipe == "histotnet"]
    assert len(system_2) == 5
    for row in system_2:
        split = row.load(full=full).split
        assert (split.by, split.repetitions, split.shares) == ("image", 10, (0.4, 0.1, 0.5))
    assert _named("s4-folds").load(full=full).split.by == "multi_label_folds"
    assert _named("s4-fields").load(full=full).split.by == "group"
    for row in (row for row in ROWS if row.recipe == "dl4all_cnn"):
        split = row.load(full=full).split
        assert (split.by, split.repetitions, split.shares) == ("image", 1, (0.7, 0.2, 0.1))
    assert _named("s6-dss").load(full=full).split.by == "image_folds"


def test_the_arms_of_system_1_differ_in_the_sharpening_alone() -> None:
    original, sharpened = _named("s1-original"), _named("s1-sharpened")
    assert (original.sharpens, sharpened.sharpens) == (False, True)
    for full in (True, False):
        assert original.load(full=full) == sharpened.load(full=full)
