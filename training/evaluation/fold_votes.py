"""The vote of the nearest known cells in a cross-validated run. It measures the embedding without the classifier."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import torch
from rich.progress import track

from services.retrieval.neighbours import unit, vote
from services.retrieval.search import ExactSearch
from training.crops.packs import Pack
from training.crops.sources import Sources
from training.errors import RecipeError
from training.learning.classification_task import outputs_of
from training.recipes.config import Recipe
from training.runs.folder import PREDICTIONS_FILE, Predictions, load_trained
from training.runs.target import cell_pack

NEIGHBOURS: Final = 15


def fold_votes(folds: list[Path], target: str, sources: Sources) -> Mapping[str, float]:
    """Vote of the 15 nearest training cells for every cell, by the network of the fold that did not learn from its patient.

    Args:
        folds: folders of all folds of a run; the training cells of one are those that the others predict.
        target: name of the data set.
        sources: where its crops come from.

    Returns:
        Distance-weighted share of blasts, 0..1, by key of the cell.

    Raises:
        RecipeError: the crops are not those of the run, or the network has no embedding of its own.
    """
    trained = load_trained(folds[0])
    recipe = Recipe.model_validate(trained.about["recipe"])
    if not recipe.network.embedding:
        raise RecipeError(f"The network of {folds[0].parent} was not trained to embed.")
    pack = cell_pack(sources, target, recipe)
    if pack.digest() != trained.about["target_digest"]:
        raise RecipeError(f"{folds[0].parent} was trained on other crops than those of the {target} that --data names.")
    predicted = [Predictions.load(folder / PREDICTIONS_FILE).keys for folder in folds]
    found: dict[str, float] = {}
    for folder, keys in zip(track(folds, description="votes"), predicted, strict=True):
        held_out = np.isin(pack.keys, keys)
        known = np.isin(pack.keys, np.concatenate(predicted)) & ~held_out
        found.update(_votes(folder, pack.select(known), pack.select(held_out)))
    return found


def _votes(folder: Path, known: Pack, cells: Pack) -> Mapping[str, float]:
    trained = load_trained(folder)
    references, queries = (
        unit(np.concatenate([o.embedding for o in outputs_of(trained.network, p.pixels, trained.normaliser, torch.device("cpu"))]))
        for p in (known, cells)
    )
    indices, distances = ExactSearch(references).nearest(queries, NEIGHBOURS)
    shares = vote(distances, known.is_blast[indices] == 1)
    return dict(zip(cells.keys.tolist(), shares.tolist(), strict=True))
