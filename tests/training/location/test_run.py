"""Tests of training the locator: the network of a run, folds that it has not seen, and samples that are made once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from services.patching.locator_maps import CHANNELS, Kind
from tests.training.location.drawn import Disk, picture, sample
from training.errors import ArrayFileError, TrainingError
from training.files.array_file import read_arrays
from training.learning.checkpoints import load_network
from training.learning.devices import Worker
from training.location import cache, run
from training.location.annotated import FOLDS, Annotated, Mark
from training.location.recipe import LocatorRecipe, load_locator_recipe
from training.location.run import NETWORK_FILE, load_locator, samples_of, train_all, train_locator
from training.location.samples import Sample
from training.location.sources import ALL_IDB, AML, COMPOSED, PHANTOMS
from training.location.task import LocatorTask
from training.location.windows import Changes, Draws

HERE = Worker(torch.device("cpu"))
CELL = Disk(80, 80, radius=30, nucleus=22)
Calls = list[Path]


@pytest.fixture(scope="module")
def recipe() -> LocatorRecipe:
    return load_locator_recipe(["training.steps=2", "training.batch=2", "windows.side=64", "network.width=4"])


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """One of each fold."""
    cells = [Disk(40, 40), Disk(90, 60, kind=Kind.SMUDGED)]
    return [sample(cells, key=f"{i}", fold=i, source=source) for i, source in enumerate((ALL_IDB, ALL_IDB, PHANTOMS))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, recipe: LocatorRecipe, samples: list[Sample]) -> Path:
    torch.set_num_threads(1)
    return train_locator(recipe, samples, tmp_path_factory.mktemp("run"), HERE)


def _maps(folder: Path) -> torch.Tensor:
    images = torch.from_numpy(np.random.default_rng(0).random((1, 3, 64, 96), np.float32))
    with torch.no_grad():
        return torch.as_tensor(load_locator(folder)(images))


def test_a_run_leaves_a_network_that_says_maps(folder: Path) -> None:
    maps = _maps(folder)
    assert maps.shape == (1, CHANNELS, 32, 48)
    assert torch.equal(maps, _maps(folder))
    assert not load_locator(folder).training
    assert float(maps.std()) > 0


def test_a_run_says_what_it_learned_from(folder: Path, recipe: LocatorRecipe) -> None:
    _, about = load_network(folder / NETWORK_FILE)
    assert (about["seed"], about["fold"]) == (0, None)
    assert LocatorRecipe.model_validate(about["recipe"]) == recipe
    assert {name: count for name, count in about["images"].items() if count} == {ALL_IDB: 2, PHANTOMS: 1}


def test_the_averaged_weights_are_taken(folder: Path) -> None:
    weights, _ = load_network(folder / NETWORK_FILE)
    arrays, about = read_arrays(folder / "checkpoint.safetensors")
    assert about["step"] == 2
    assert all(np.array_equal(tensor.numpy(), arrays[f"average/{name}"]) for name, tensor in weights.items())
    assert not all(np.array_equal(tensor.numpy(), arrays[f"network/{name}"]) for name, tensor in weights.items())


def test_the_same_call_again_does_nothing_anew(folder: Path, recipe: LocatorRecipe, samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a step was taken")

    before = _maps(folder)
    (folder / NETWORK_FILE).unlink()
    monkeypatch.setattr(LocatorTask, "loss", refuse)
    assert train_locator(recipe, samples, folder, HERE) == folder
    assert torch.equal(_maps(folder), before)


def test_another_training_in_the_same_folder_is_refused(folder: Path, recipe: LocatorRecipe, samples: list[Sample]) -> None:
    with pytest.raises(ArrayFileError, match="other options or data"):
        train_locator(recipe, samples, folder, HERE, seed=1)


def test_the_same_seed_gives_the_same_network(tmp_path: Path, folder: Path, recipe: LocatorRecipe, samples: list[Sample]) -> None:
    train_locator(recipe, samples, tmp_path / "again", HERE)
    train_locator(recipe, samples, tmp_path / "other", HERE, seed=1)
    assert torch.equal(_maps(tmp_path / "again"), _maps(folder))
    assert not torch.equal(_maps(tmp_path / "other"), _maps(folder))


def test_each_network_of_a_fold_has_not_seen_it(
    tmp_path: Path, recipe: LocatorRecipe, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def noting(learned: list[Sample], shares: dict[str, float], changes: Changes, side: int) -> Draws:
        seen.append({s.fold for s in learned})
        return Draws(learned, shares, changes, side)

    monkeypatch.setattr(run, "Draws", noting)
    one_step = recipe.model_copy(update={"training": recipe.training.model_copy(update={"steps": 1})})
    train_all(one_step, samples, tmp_path, HERE, folds=True)
    assert seen == [set(range(FOLDS)) - {fold} for fold in range(FOLDS)]
    for fold in range(FOLDS):
        assert load_network(tmp_path / f"fold-{fold}" / NETWORK_FILE)[1]["fold"] == fold
    assert not (tmp_path / NETWORK_FILE).exists()


def test_without_folds_all_is_one_network(tmp_path: Path, recipe: LocatorRecipe, samples: list[Sample], folder: Path) -> None:
    assert train_all(recipe, samples, tmp_path, HERE) == tmp_path
    assert torch.equal(_maps(tmp_path), _maps(folder))


def test_where_nothing_is_left_to_learn_it_is_told(tmp_path: Path, recipe: LocatorRecipe, samples: list[Sample]) -> None:
    with pytest.raises(TrainingError, match="left to learn"):
        train_locator(recipe, [samples[1]], tmp_path, HERE, fold=1)
    with pytest.raises(TrainingError, match="left to learn"):
        train_locator(recipe, [], tmp_path, HERE)


def test_a_folder_without_a_network_is_told(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="train it first"):
        load_locator(tmp_path)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Folders that were read: every source has one image whose scale is known, and one without red cells."""
    made: Calls = []

    def images(source: str, folder: Path) -> Iterator[Annotated]:
        made.append(folder)
        known = Annotated("known", source, 1, picture([CELL], 160, 200), (Mark(CELL.x, CELL.y, Kind.NUCLEATED),), red_cell_radius=18.0)
        yield known
        yield replace(known, key="empty", pixels=picture([], 160, 200), marks=(), red_cell_radius=None)

    def reading(source: str) -> object:
        return lambda folder: images(source, folder)

    monkeypatch.setattr(run, "SOURCES", {name: reading(name) for name in (ALL_IDB, AML, COMPOSED, PHANTOMS)})
    return made


def test_samples_are_made_once(tmp_path: Path, calls: Calls) -> None:
    (tmp_path / "data" / ALL_IDB).mkdir(parents=True)
    first = samples_of([tmp_path / "data"], tmp_path / "cache", [ALL_IDB])
    again = samples_of([tmp_path / "data" / ALL_IDB], tmp_path / "cache", [ALL_IDB])
    assert calls == [tmp_path / "data" / ALL_IDB]
    assert [s.key for s in first] == [s.key for s in again] == ["known"]
    assert np.array_equal(first[0].owners, again[0].owners)
    assert np.array_equal(first[0].pixels, again[0].pixels)


def test_samples_of_another_version_are_made_anew(tmp_path: Path, calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ALL_IDB).mkdir()
    samples_of([tmp_path], tmp_path / "cache", [ALL_IDB])
    monkeypatch.setattr(cache, "VERSION", cache.VERSION + 1)
    assert len(samples_of([tmp_path], tmp_path / "cache", [ALL_IDB])) == 1
    assert len(calls) == 2


def test_sources_whose_folders_are_there_are_read_and_phantoms_always(tmp_path: Path, calls: Calls) -> None:
    (tmp_path / AML).mkdir()
    found = samples_of([tmp_path], tmp_path / "cache", [ALL_IDB, PHANTOMS, COMPOSED, AML])
    assert [s.source for s in found] == [PHANTOMS, COMPOSED, AML]
    assert calls == [Path(), tmp_path / AML, tmp_path / AML]


@pytest.mark.parametrize("wanted", [[ALL_IDB, PHANTOMS], [PHANTOMS], [ALL_IDB]])
def test_folders_without_any_data_set_are_told(tmp_path: Path, calls: Calls, wanted: list[str]) -> None:
    with pytest.raises(TrainingError, match=f"None of {ALL_IDB}"):
        samples_of([tmp_path], tmp_path / "cache", wanted)
    assert not calls


def test_a_source_whose_scale_is_never_seen_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ALL_IDB).mkdir()
    empty = Annotated("empty", ALL_IDB, 0, picture([], 160, 200), ())
    monkeypatch.setattr(run, "SOURCES", {ALL_IDB: lambda _: iter([empty])})
    with pytest.raises(TrainingError, match="scale"):
        samples_of([tmp_path], tmp_path / "cache", [ALL_IDB])
