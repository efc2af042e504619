"""Tests of recipe files: every preset loads, says what the papers say, and refuses what it does not know."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.architectures.build import Architecture, NetworkConfig, build_network
from training.architectures.lbp import Kernel
from training.architectures.network import HEAD, parameter_count
from training.errors import RecipeError
from training.files.array_file import read_arrays
from training.recipes.config import (
    ClassWeights,
    InputKind,
    Normalisation,
    Recipe,
    ScheduleKind,
    Selection,
    Variant,
    as_json,
    load_recipe,
    recipe_names,
)


def test_the_recipes_that_there_are() -> None:
    assert recipe_names() == (
        "adaptive_unsharpening",
        "all_idb_patches",
        "allnet",
        "dl4all_cnn",
        "dl4all_vit",
        "dss",
        "efficientnet_lite0",
        "histotnet",
        "plain_resnet",
    )


@pytest.mark.parametrize(("name", "repetitions", "batch", "epochs"), [("histotnet", 10, 8, 80), ("allnet", 5, 32, 100)])
def test_published_is_what_the_papers_programs_do(name: str, repetitions: int, batch: int, epochs: int) -> None:
    recipe = load_recipe(name, "published")
    source, target = recipe.pretraining, recipe.fine_tuning
    assert source is not None
    assert (source.input.center_crop, source.input.side, source.batch, source.epochs) == (272, 224, 32, epochs)
    assert (source.schedule.kind, source.schedule.low, source.schedule.period_epochs) == (ScheduleKind.TRIANGULAR, 0.001, 8)
    assert (source.optimiser.kind, source.optimiser.rate, source.optimiser.momentum, source.optimiser.weight_decay) == ("sgd", 0.02, 0.9, 5e-4)
    assert (source.class_weights, source.normalisation, source.folds) == (ClassWeights.INVERSE_COUNT_LEGACY, Normalisation.SCALAR, "by_image")
    assert (source.augmentation.flips, source.augmentation.rotation, source.selection) == (True, 0.0, Selection.BEST_LEGACY)
    assert (target.input.kind, target.input.center_crop, target.input.side) == (InputKind.CENTER_CROP, 256, 224)
    assert (target.batch, target.epochs, target.augmentation.rotation, target.normalisation) == (batch, 100, 90.0, Normalisation.NONE)
    assert (target.schedule.kind, target.schedule.step_epochs, target.schedule.gamma) == (ScheduleKind.STEP, 20, 0.5)
    assert (recipe.split.by, recipe.split.shares, recipe.split.repetitions) == ("image", (0.4, 0.1, 0.5), repetitions)


def test_published_patches_are_trained_as_their_author_does() -> None:
    recipe = load_recipe("all_idb_patches", "published")
    warm_up, target = recipe.warm_up, recipe.fine_tuning
    assert recipe.learns == "patches"
    assert recipe.pretraining is not None
    assert warm_up is not None
    assert (warm_up.epochs, warm_up.optimiser.rate, warm_up.schedule.kind) == (5, 1e-4, ScheduleKind.CONSTANT)
    assert (target.input.center_crop, target.input.side, target.batch, target.epochs) == (256, 224, 128, 100)
    assert (target.optimiser.kind, target.optimiser.rate, target.optimiser.weight_decay) == ("adamw", 1e-4, 5e-4)
    assert (target.schedule.kind, target.schedule.low) == (ScheduleKind.COSINE, 1e-6)
    assert (target.class_weights, target.orthogonality_weight, target.selection) == (ClassWeights.POSITIVE, 0.1, Selection.BEST)
    assert (target.augmentation.flips, target.augmentation.rotation) == (True, 180.0)
    assert (recipe.split.by, load_recipe("all_idb_patches").split.by) == ("multi_label_folds", "group")


def test_published_metric_learning_is_what_the_papers_program_does() -> None:
    recipe = load_recipe("dss", "published")
    warm_up, target = recipe.warm_up, recipe.fine_tuning
    assert warm_up is not None
    assert (warm_up.epochs, warm_up.optimiser.kind, warm_up.optimiser.rate, warm_up.schedule.kind) == (2, "sgd", 0.02, ScheduleKind.CONSTANT)
    assert (warm_up.triplet_weight, warm_up.orthogonality_weight) == (0.0, 0.0)
    assert (target.optimiser.kind, target.optimiser.rate, target.optimiser.momentum, target.optimiser.weight_decay) == ("sgd", 0.002, 0.9, 5e-4)
    assert (target.schedule.kind, target.schedule.step_epochs, target.schedule.gamma) == (ScheduleKind.STEP, 20, 0.5)
    assert (target.batch, target.epochs, target.selection, target.class_weights) == (8, 90, Selection.BEST, ClassWeights.INVERSE_COUNT)
    assert (target.triplet_weight, target.triplet_margin, target.orthogonality_weight, target.orthogonality_legacy) == (1.0, 0.05, 0.1, True)
    assert (recipe.network.embedding, recipe.split.by) == (0, "image_folds")
    ours = load_recipe("dss").fine_tuning
    assert (ours.contrastive_weight, ours.triplet_weight, ours.orthogonality_legacy) == (0.0, 1.0, False)


@pytest.mark.parametrize(("name", "architecture", "side"), [("dl4all_cnn", Architecture.RESNET18, 224), ("dl4all_vit", Architecture.VIT_B16, 384)])
def test_published_source_and_target_are_learned_at_once_as_in_the_papers_program(name: str, architecture: Architecture, side: int) -> None:
    recipe = load_recipe(name, "published")
    how, warm_up, target = recipe.interleaving, recipe.warm_up, recipe.fine_tuning
    assert how is not None
    assert warm_up is not None
    assert recipe.interleaves
    assert (recipe.network.architecture, recipe.network.width, recipe.network.embedding) == (architecture, 64, 0)
    assert (how.variant, how.level, how.proportional, how.part, how.head_rate) == (Variant.REGULAR, 3, False, "published", 5.0)
    assert (how.refresh, how.readaptation, how.class_weights) == (True, 101, ClassWeights.INVERSE_COUNT_LEGACY)
    assert (how.input.center_crop, how.input.side, target.input.center_crop, target.input.side) == (272, side, 450, side)
    assert (how.normalisation, target.normalisation, target.statistics_from_validation) == (Normalisation.SCALAR, Normalisation.SCALAR, True)
    assert (how.augmentation.flips, how.augmentation.rotation, target.augmentation.rotation) == (True, 0.0, 90.0)
    assert (warm_up.optimiser.kind, warm_up.optimiser.rate, warm_up.epochs, warm_up.batch) == ("sgd", 1e-3, 1, 8)
    assert (target.optimiser.kind, target.optimiser.rate, target.optimiser.momentum, target.optimiser.weight_decay) == ("sgd", 2e-4, 0.9, 5e-4)
    assert (target.schedule.kind, target.batch, target.epochs, target.selection) == (ScheduleKind.CONSTANT, 8, 100, Selection.BEST)
    assert (target.class_weights, target.contrastive_weight) == (ClassWeights.INVERSE_COUNT, 0.0)
    assert (recipe.split.by, recipe.split.shares, recipe.split.repetitions) == ("image", (0.7, 0.2, 0.1), 1)


def test_the_source_is_learned_once() -> None:
    both = [
        "pretraining.enabled=true",
        "pretraining.batch=8",
        "pretraining.epochs=1",
        "pretraining.input.kind=center_crop",
        "pretraining.optimiser.rate=0.1",
    ]
    with pytest.raises(RecipeError, match="goes with neither pretraining nor patches"):
        load_recipe("dl4all_cnn", changes=both)
    with pytest.raises(RecipeError, match="goes with neither pretraining nor patches"):
        load_recipe("dl4all_cnn", changes=["learns=patches"])
    assert not load_recipe("dl4all_cnn", changes=["interleaving.enabled=false", *both]).interleaves
    assert [("interleaving" in as_json(load_recipe(name))) for name in ("dl4all_vit", "allnet")] == [True, False]
    with pytest.raises(RecipeError, match="'regular', 'self', 'greedy' or 'greedy_legacy'"):
        load_recipe("dl4all_cnn", changes=["interleaving.variant=selfish"])


def test_the_published_allnet_is_the_one_with_342082_parameters() -> None:
    recipe = load_recipe("allnet", "published")
    assert (recipe.network.kernel, recipe.network.lbp_relu) == (Kernel.GAUSSIAN, False)
    assert parameter_count(build_network(recipe.network, {HEAD: 2}, 224)) == 342_082


@pytest.mark.parametrize("path", sorted(Path("docs/runs").glob("*.safetensors")), ids=lambda path: path.stem)
def test_the_recipe_of_a_kept_run_is_read_and_written_as_it_stands(path: Path) -> None:
    kept = read_arrays(path)[1]["recipe"]
    recipe = Recipe.model_validate(kept)
    assert (recipe.split.by, recipe.injection.source) == ("group", "background")
    assert as_json(recipe) == kept


def test_the_names_of_earlier_recipes_are_read() -> None:
    by_old_names = load_recipe("plain_resnet", changes=["division.by=image", "injection.nothing=0.1", "injection.source=places"])
    assert by_old_names == load_recipe("plain_resnet", changes=["split.by=image", "injection.nothing=0.1", "injection.source=background"])


@pytest.mark.parametrize("name", recipe_names())
def test_grouped_is_by_patient_and_small(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.split.by == "group"
    assert recipe.fine_tuning.input.side <= 128
    assert recipe.fine_tuning.input.kind is (InputKind.REGISTERED_SHARPENED if recipe.learns == "cells" else InputKind.CENTER_CROP)
    assert recipe.fine_tuning.selection is Selection.LAST
    assert not recipe.fine_tuning.statistics_from_validation
    assert recipe.pretraining is None or recipe.pretraining.folds == "by_group"


def test_changes_are_values_or_bare_words() -> None:
    recipe = load_recipe("allnet", changes=["fine_tuning.epochs=3", "network.kernel=gaussian", "pretraining.enabled=false", 'title="A, b"'])
    assert recipe.pretraining is not None
    assert (recipe.fine_tuning.epochs, recipe.network.kernel, recipe.pretraining.enabled, recipe.title) == (3, Kernel.GAUSSIAN, False, "A, b")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("fine_tuning.epoch=3", r"fine_tuning\.epoch: Extra inputs"),
        ("fine_tuning.epochs=none", r"fine_tuning\.epochs: Input should be a valid integer"),
        ("fine_tuning.epochs=0", "greater than or equal to 1"),
        ("network.kernel=random", "'binary' or 'gaussian'"),
        ("title.x=1", "title holds no switches"),
        ("epochs", "stage.switch=value"),
        ("=3", "stage.switch=value"),
        ("fine_tuning.selection=best", "kept by selection last only"),
    ],
)
def test_changes_that_make_no_sense_are_refused_with_their_name(change: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe("allnet", changes=[change])


@pytest.mark.parametrize(("recipe", "narrow", "least"), [("plain_resnet", 15, 16), ("all_idb_patches", 12, 16), ("histotnet", 7, 8)])
def test_networks_that_torch_cannot_train_are_refused(recipe: str, narrow: int, least: int) -> None:
    with pytest.raises(RecipeError, match=f"network.width: this network is trained with at least {least}, not {narrow}"):
        load_recipe(recipe, changes=[f"network.width={narrow}"])
    assert load_recipe(recipe, changes=[f"network.width={least}"]).network.width == least


def test_unknown_recipes_and_presets_list_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError,
        match="there are adaptive_unsharpening, all_idb_patches, allnet, dl4all_cnn, dl4all_vit, dss, efficientnet_lite0, histotnet, plain_resnet",
    ):
        load_recipe("alnet")
    with pytest.raises(RecipeError, match="it has published, grouped"):
        load_recipe("allnet", "publisched")
    (tmp_path / "mine.toml").write_text("[grouped\n", encoding="utf-8")
    with pytest.raises(RecipeError, match="is not TOML"):
        load_recipe(str(tmp_path / "mine.toml"))


def test_networks_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 4"):
        NetworkConfig(architecture=Architecture.RESNET18, width=1)
