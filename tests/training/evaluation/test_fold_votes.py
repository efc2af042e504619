"""Tests of votes in a cross-validation: every cell by the network and the cells of the other folds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from services.retrieval.neighbours import unit, vote
from tests.training.small import cell_pack, write_packs, write_recipe
from training.crops.packs import write_pack
from training.crops.sources import Sources
from training.errors import RecipeError
from training.evaluation.fold_votes import NEIGHBOURS, fold_votes
from training.learning.classification_task import outputs_of
from training.learning.devices import Worker
from training.recipes.config import load_recipe
from training.runs.folder import Predictions, TransferOptions, load_trained
from training.runs.transfer import run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("votes")


@pytest.fixture(scope="module")
def sources(folder: Path) -> Sources:
    return Sources.find(write_packs(folder), folder / "cache")


@pytest.fixture(scope="module")
def trained(folder: Path, sources: Sources) -> Path:
    recipe = load_recipe(str(write_recipe(folder, epochs=1)), changes=["pretraining.enabled=false"])
    return run(TransferOptions(recipe, "", "", 0, 3, folder / "runs", "cv"), sources, Worker(torch.device("cpu")))


def test_every_cell_is_voted_on_by_the_cells_of_the_other_folds(trained: Path, sources: Sources) -> None:
    folds = [trained / f"fold-{k}" for k in range(3)]
    found = fold_votes(folds, "aml_cells", sources)
    held_out = Predictions.load(folds[1] / "predictions.safetensors").keys
    network = load_trained(folds[1])
    pack = sources.pack("aml_cells", load_recipe(str(trained.parents[1] / "small.toml")).fine_tuning.input)
    development = pack.select(np.isin(pack.keys, list(found)))
    embedded = np.concatenate([o.embedding for o in outputs_of(network.network, development.pixels, network.normaliser, torch.device("cpu"))])
    query = int(np.flatnonzero(development.keys == held_out[0])[0])
    known = np.flatnonzero(~np.isin(development.keys, held_out))
    distances = np.linalg.norm(unit(embedded[known]) - unit(embedded[query]), axis=1)
    nearest = np.argsort(distances, kind="stable")[:NEIGHBOURS]
    expected = vote(distances[nearest][None], development.is_blast[known[nearest]][None] == 1)[0]
    assert found[held_out[0]] == pytest.approx(float(expected), abs=1e-3)
    assert len(found) == sum(len(Predictions.load(f / "predictions.safetensors").keys) for f in folds)


def test_other_crops_and_networks_without_embedding_are_refused(trained: Path, sources: Sources, tmp_path: Path) -> None:
    folds = [trained / "fold-0"]
    write_pack(cell_pack(seed=5), tmp_path / "cells.pack")
    with pytest.raises(RecipeError, match="trained on other crops"):
        fold_votes(folds, "aml_cells", Sources.find([tmp_path / "cells.pack"], tmp_path))
    recipe = load_recipe(
        str(write_recipe(tmp_path, epochs=1)), changes=["pretraining.enabled=false", "network.embedding=0", "fine_tuning.contrastive_weight=0"]
    )
    other = run(TransferOptions(recipe, "", "", 0, 2, tmp_path / "runs", "cv"), sources, Worker(torch.device("cpu")))
    with pytest.raises(RecipeError, match="not trained to embed"):
        fold_votes([other / "fold-0"], "aml_cells", sources)
