"""Train networks by the honest protocols, in several seeds: sessions and blocks of fields stay whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.crops.packs import Pack
from training.datasets.all_idb_cells import ALL_IDB_CELLS
from training.datasets.all_idb_fields import SMUDGED
from training.evaluation.all_idb.data import BenchmarkData
from training.evaluation.all_idb.protocols import Protocol, honest_protocols
from training.learning.classification_task import logits_of
from training.learning.devices import Worker
from training.recipes.config import GROUPED, Input, InputKind, as_json, load_recipe
from training.runs import transfer
from training.runs.folder import PREDICTIONS_FILE, SPLIT, Predictions, TransferOptions, describe, load_trained, split_digest
from training.runs.pretraining import initial_weights

Double = NDArray[np.float64]
SEEDS: Final = (0, 1, 2)
CROP: Final = 256


@dataclass(frozen=True)
class Network:
    """A network that is trained by the honest protocols.

    Attributes:
        name: of its runs, and what ``--only`` takes.
        title: for people.
        changes: of the recipe ``efficientnet_lite0``, preset ``grouped``.
        side: of its crops in px.
        needs_checkpoint: whether it starts from the published file of ALLNet.
    """

    name: str
    title: str
    changes: tuple[str, ...]
    side: int
    needs_checkpoint: bool = False


_COMMON: Final = (
    "fine_tuning.class_weights=inverse_count",
    "fine_tuning.contrastive_weight=0",
    "fine_tuning.augmentation.scale=0.1",
    "fine_tuning.batch=8",
    "fine_tuning.average_decay=0",
)
"""Parts have 120 to 250 cells: few steps, so that batches are small, and a moving average would keep the first weights."""
NETWORKS: Final = (
    Network("lite0-imagenet", "Lite0 from ImageNet", ("fine_tuning.epochs=5",), 96),
    Network(
        "allnet-adp",
        "ALLNet ResNet18 from ADP, level 1",
        (
            "network.architecture=resnet18_lbp",
            "network.kernel=gaussian",
            "network.lbp_relu=false",
            "network.embedding=0",
            "start=allnet",
            "fine_tuning.epochs=10",
        ),
        128,
        needs_checkpoint=True,
    ),
    Network(
        "resnet-scratch",
        "narrow ResNet18 from scratch",
        ("network.architecture=resnet18", "network.width=16", "start=scratch", "fine_tuning.epochs=20", "fine_tuning.optimiser.rate=3e-3"),
        128,
    ),
)


def cell_windows(data: BenchmarkData, side: int) -> Pack:
    """All windows of the fields, smudged and unknown cells among them."""
    return data.cells().pack(ALL_IDB_CELLS, Input(kind=InputKind.CENTER_CROP, center_crop=CROP, side=side))


def options_of(network: Network, data: BenchmarkData, runs: Path, seed: int) -> TransferOptions:
    """Options of the run of a network with a seed."""
    window = f'fine_tuning.input={{ kind = "center_crop", center_crop = {CROP}, side = {network.side} }}'
    recipe = load_recipe("efficientnet_lite0", GROUPED, [window, *_COMMON, *network.changes])
    name = f"honest-{network.name}-{seed}"
    return TransferOptions(recipe, "", ALL_IDB_CELLS, seed, 0, runs, name, checkpoint=data.checkpoint if network.needs_checkpoint else None)


def train_honestly(network: Network, data: BenchmarkData, runs: Path, worker: Worker, seeds: Sequence[int] = SEEDS) -> None:
    """Train every part of every protocol in every seed; what is finished is not done again.

    Raises:
        TrainingError: the data or a file are at fault; what is finished stays.
    """
    windows = cell_windows(data, network.side)
    cells = windows.select(windows.is_blast >= 0)
    for seed in seeds:
        options = options_of(network, data, runs, seed)
        weights, begun = initial_weights(options, data.cells(), worker)
        about = {"recipe": as_json(options.recipe), "target": ALL_IDB_CELLS, "target_digest": cells.digest(), "seed": seed, "folds": 0, **begun}
        folder = options.runs / options.name
        describe(folder, about, options.recipe.gates, worker)
        for protocol in honest_protocols(cells).values():
            for name, split in protocol.parts.items():
                part = {**about, "part": f"{protocol.name}/{name}", SPLIT: split_digest(cells, split)}
                transfer.fit_part(options, cells, None, split, folder / protocol.name / name, weights, part, worker)


def margins_of(folder: Path, protocol: Protocol, cells: Pack) -> Double:
    """Out-of-part margins of a protocol, float64 (N,); NaN for cells that it does not test."""
    margins = np.full(len(cells), np.nan)
    position = {key: i for i, key in enumerate(cells.keys.tolist())}
    for name in protocol.parts:
        said = Predictions.load(folder / protocol.name / name / PREDICTIONS_FILE)
        margins[[position[key] for key in said.keys.tolist()]] = said.margin
    return margins


def smudged_margins(folder: Path, protocol: Protocol, windows: Pack, worker: Worker) -> Double:
    """Margins of smudged cells by the network that did not learn from their block, float64 (M,); a protocol of one camera has its own alone."""
    smudged = windows.select(windows.class_names == SMUDGED)
    found = []
    for name in protocol.parts:
        chosen = smudged.select(smudged.folds == name)
        if len(chosen):
            trained = load_trained(folder / protocol.name / name)
            logits = logits_of(trained.network, chosen.pixels, trained.normaliser, worker.device)
            found.append((logits[:, 1] - logits[:, 0]).astype(np.float64))
    return np.concatenate(found) if found else np.zeros(0)
