"""Which training a recipe asks for, and what is reported of it."""

from __future__ import annotations

from pathlib import Path

from training.crops.sources import Sources
from training.learning.devices import Worker
from training.runs import interleaved, patch_cross_validation, patches, transfer
from training.runs.folder import TransferOptions
from training.runs.patches import write_patch_report
from training.runs.report import write_report


def train(options: TransferOptions, sources: Sources, worker: Worker) -> Path:
    """Train the recipe of the options; what is finished is not done again.

    Returns:
        The folder of the run.

    Raises:
        TrainingError: the data, the options or a file are at fault; what is finished stays.
    """
    recipe = options.recipe
    if recipe.learns == "patches":
        return patch_cross_validation.run(options, sources, worker) if options.folds else patches.run(options, sources, worker)
    return interleaved.run(options, sources, worker) if recipe.interleaves else transfer.run(options, sources, worker)


def report(options: TransferOptions, folder: Path) -> list[str]:
    """Write the report of a finished run into its folder.

    Returns:
        Its lines, for a person.
    """
    judges_patches = options.recipe.learns == "patches" and not options.folds
    return list(write_patch_report(folder) if judges_patches else write_report(folder))
