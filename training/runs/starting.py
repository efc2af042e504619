"""Weights that a network has before any training of ours."""

from __future__ import annotations

from services.common.releases import sha256_of
from training.architectures.efficientnet_lite import imagenet_weights
from training.errors import RecipeError
from training.export.allnet import load_allnet
from training.learning.checkpoints import Weights
from training.recipes.config import Start
from training.runs.folder import TransferOptions


def starting_weights(options: TransferOptions) -> tuple[Weights | None, dict[str, str]]:
    """Weights that the recipe starts from, None where they are drawn anew, and what a run notes of them.

    Raises:
        RecipeError: a checkpoint is needed and not named, or is of another network.
        TrainingError: the file is none, or the package of the ImageNet weights is not installed.
    """
    start = options.recipe.start
    if options.checkpoint is not None and start is not Start.ALLNET:
        raise RecipeError('A checkpoint is read by recipes with start = "allnet" only; add --set start=allnet, or leave --checkpoint out.')
    match start:
        case Start.SCRATCH:
            return None, {}
        case Start.IMAGENET:
            return imagenet_weights(), {}
        case Start.ALLNET:
            if options.checkpoint is None:
                raise RecipeError('start = "allnet" needs the published file: name it with --checkpoint PATH/modelsave_1_final.pt.')
            network, imported = load_allnet(options.checkpoint)
            if imported.architecture is not options.recipe.network.architecture:
                wanted = options.recipe.network.architecture.value
                raise RecipeError(
                    f"The checkpoint is of {imported.architecture.value}, the recipe trains {wanted}; add --set network.architecture={imported.architecture.value}."
                )
            return dict(network.state_dict()), {"checkpoint": sha256_of(options.checkpoint)}
