"""Train a row of the papers' experiments on ALL-IDB. What is finished is not done again, and what was stopped goes on within its epoch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from services.preprocessing.focus import MAX_SCORE
from services.preprocessing.unsharpening import FocusParameters
from training.crops.packs import Pack
from training.crops.sources import Sources
from training.crops.threshold_tuning import tune_threshold
from training.datasets.all_idb import ALL_IDB2
from training.datasets.splits import Split
from training.evaluation.all_idb.data import BenchmarkData
from training.evaluation.all_idb.rows import Row
from training.files.whole_files import write_json
from training.learning.devices import Worker
from training.recipes.config import Input, InputKind, Recipe, as_json
from training.runs import patches, start, transfer
from training.runs.folder import SPLIT, TransferOptions, describe, leader_first, split_digest
from training.runs.pretraining import initial_weights
from training.runs.target import cell_pack, crops_without_cells, splits

SHARPENING_SIDE: Final = 256
"""Side in px at which system 1 sharpens; networks see the crop reduced to their own."""
DSS_THRESHOLD: Final = 7.1
"""Focus threshold of the crops that system 6 was published with."""
THRESHOLD_FILE: Final = "threshold.json"


def options_of(row: Row, data: BenchmarkData, runs: Path, seed: int, *, full: bool) -> TransferOptions:
    """Options of a row's run; the short form has a folder of its own where it differs."""
    name = row.name if full or not row.cuts else f"{row.name}-short"
    return TransferOptions(row.load(full=full), row.source, "", seed, 0, runs, name, checkpoint=data.checkpoint if row.needs_checkpoint else None)


def sources_of(row: Row, data: BenchmarkData) -> Sources:
    """The data that a row learns from."""
    sources = data.patches() if row.learns_patches else data.official_crops()
    return data.with_tissue(sources) if row.source else sources


def train_row(row: Row, data: BenchmarkData, runs: Path, worker: Worker, seed: int = 0, *, full: bool) -> Path:
    """Train all repetitions of a row.

    Returns:
        The folder of the run.

    Raises:
        TrainingError: the data or a file are at fault; what is finished stays.
    """
    options, sources = options_of(row, data, runs, seed, full=full), sources_of(row, data)
    if row.recipe == "adaptive_unsharpening":
        return _train_halves(row, options, sources, worker)
    if row.recipe == "dss":
        return _train_dss(options, sources, data, worker)
    return start.train(options, sources, worker)


def splits_of(row: Row, options: TransferOptions, pack: Pack) -> dict[str, Split]:
    """The splits of a row by name, as its training makes them."""
    return patches.splits(pack, options.recipe, options.seed) if row.learns_patches else splits(pack, options)


def scored_pack(row: Row, options: TransferOptions, sources: Sources, worker: Worker) -> Pack:
    """The images that a row splits, with their crops; those of system 1 and 6 unsharpened."""
    if row.recipe in ("adaptive_unsharpening", "dss"):
        return legacy_crops(sources, MAX_SCORE)
    if row.learns_patches:
        return leader_first(worker, lambda: patches.patch_pack(sources, "", options.recipe))
    return leader_first(worker, lambda: cell_pack(sources, "", options.recipe))


def legacy_crops(sources: Sources, threshold: float) -> Pack:
    """Crops of ALL-IDB2 as system 1 cuts them, at ``SHARPENING_SIDE``, sharpened until their focus score is at most the threshold."""
    wanted = Input(kind=InputKind.LEGACY_SHARPENED, side=SHARPENING_SIDE, threshold="tuned_legacy")
    return sources.pack(ALL_IDB2, wanted, focus=FocusParameters((1.0,), (threshold,), (MAX_SCORE,)))


def half_threshold(crops: Pack, training: np.ndarray[Any, np.dtype[np.int64]]) -> float:
    """Focus threshold that system 1 chooses on a training half: focus must not tell the class, then PCANet's nearest neighbour decides.

    Args:
        crops: unsharpened, see ``legacy_crops``.
        training: indices of the half.
    """
    each = np.array([str(i) for i in range(len(training))])
    return tune_threshold(list(crops.pixels[training]), crops.is_blast[training].astype(np.int64), each, legacy=True).threshold


def reduced(pack: Pack, side: int) -> Pack:
    """A pack with crops of another side, antialiased."""
    pixels = np.stack([cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA) for crop in pack.pixels])
    return replace(pack, pixels=np.asarray(pixels, np.uint8), header=replace(pack.header, side=side))


def _train_halves(row: Row, options: TransferOptions, sources: Sources, worker: Worker) -> Path:
    """System 1: every half chooses the threshold by which all crops of its repetition are sharpened."""
    recipe, folder = options.recipe, options.runs / options.name
    plain = legacy_crops(sources, MAX_SCORE)
    weights, begun = initial_weights(options, sources, worker)
    about = {**_description(recipe, plain, options), **begun, "sharpened": bool(row.sharpens)}
    describe(folder, about, recipe.gates, worker)
    for name, split in splits(plain, options).items():
        threshold = _kept_threshold(folder / name / THRESHOLD_FILE, plain, split) if row.sharpens else MAX_SCORE
        crops = legacy_crops(sources, threshold)
        part = {**about, "part": name, SPLIT: split_digest(plain, split), "threshold": threshold}
        transfer.fit_part(options, reduced(crops, recipe.fine_tuning.input.side), None, split, folder / name, weights, part, worker)
    return folder


def _train_dss(options: TransferOptions, sources: Sources, data: BenchmarkData, worker: Worker) -> Path:
    """System 6: crops sharpened with the published threshold, and patches of real fields that show no cell as the class nothing."""
    recipe, folder = options.recipe, options.runs / options.name
    target, nothing = dss_crops(recipe, sources, data)
    weights, begun = initial_weights(options, sources, worker)
    about = {**_description(recipe, target, options), **begun, "nothing_digest": nothing.digest(), "threshold": DSS_THRESHOLD}
    describe(folder, about, recipe.gates, worker)
    for name, split in splits(target, options).items():
        part = {**about, "part": name, SPLIT: split_digest(target, split)}
        transfer.fit_part(options, target, nothing, split, folder / name, weights, part, worker)
    return folder


def dss_crops(recipe: Recipe, sources: Sources, data: BenchmarkData) -> tuple[Pack, Pack]:
    """The cells of system 6, and the crops without a cell."""
    target = reduced(legacy_crops(sources, DSS_THRESHOLD), recipe.fine_tuning.input.side)
    both = Sources({**sources.folders, **data.patches().folders}, {}, data.packs)
    nothing = crops_without_cells(both, target, recipe)
    assert nothing is not None
    return target, nothing


def _description(recipe: Recipe, target: Pack, options: TransferOptions) -> Mapping[str, Any]:
    return {
        "recipe": as_json(recipe),
        "target": target.header.dataset,
        "target_digest": target.digest(),
        "seed": options.seed,
        "folds": options.folds,
    }


def _kept_threshold(path: Path, plain: Pack, split: Split) -> float:
    """The threshold of a half, chosen once: it takes minutes."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"threshold": half_threshold(plain, split.train)})
    return float(json.loads(path.read_text(encoding="utf-8"))["threshold"])
