"""How much of the bare forward and backward pass the training loop keeps.

    python -m tests.benchmarks.training

The loop does all that a training does: batches drawn and augmented, copied, normalised, losses, optimiser, moving average, progress
bar. The bare pass runs the same network on one batch that lies ready in memory, cross-entropy, backward, nothing else. The two
alternate within one run; their ratio is what counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from training.architectures.build import build_network
from training.architectures.network import HEAD, Network
from training.learning.classification_task import ClassificationTask, Normaliser, Samples
from training.learning.devices import Worker, start_worker
from training.learning.loop import LoopOptions, train
from training.recipes.config import Precision, Recipe, load_recipe

ROUNDS = 5
STEPS = 16
FIRST, LAST = 2, STEPS - 1
"""Steps between which the loop is timed: opening the logs and the last checkpoint are left out, because a long training does them once."""
RECIPES = ("allnet", "histotnet", "plain_resnet")


def main() -> None:
    """Print one line per recipe."""
    with start_worker("auto") as worker:
        print(f"{worker.device}, {torch.get_num_threads()} threads, {ROUNDS} rounds of {STEPS} steps")
        print("| recipe | bare, images/s | loop, images/s | ratio, median | lowest round |\n|---|---|---|---|---|")
        for name in RECIPES:
            recipe = load_recipe(name)
            bare, loop = _bare(recipe, worker), _loop(recipe, worker)
            bare(), loop()
            rates = [(bare(), loop()) for _ in range(ROUNDS)]
            ratios = [b / a for a, b in rates]
            print(
                f"| {name} | {np.median([a for a, _ in rates]):.0f} | {np.median([b for _, b in rates]):.0f} | {np.median(ratios):.2f} | {min(ratios):.2f} |"
            )


def _samples(recipe: Recipe, count: int) -> Samples:
    side = recipe.fine_tuning.input.side
    generator = np.random.default_rng(0)
    labels = np.eye(2, dtype=np.int8)[np.arange(count) % 2]
    pixels = generator.integers(0, 256, (count, side, side, 3), np.uint8)
    return Samples(pixels, labels, generator.integers(0, 9, count), np.array([f"p{i % 40}" for i in range(count)]))


def _bare(recipe: Recipe, worker: Worker) -> Callable[[], float]:
    stage = recipe.fine_tuning
    network: Network = (
        cast(Any, build_network(recipe.network, {HEAD: 2}, stage.input.side)).to(device=worker.device, memory_format=torch.channels_last).train()
    )
    samples = _samples(recipe, stage.batch)
    images = Normaliser((0.7,) * 3, (0.2,) * 3)(torch.from_numpy(samples.pixels).to(worker.device))
    classes = torch.from_numpy(samples.labels.argmax(axis=1)).to(worker.device)

    def run() -> float:
        began = time.perf_counter()
        for _ in range(STEPS):
            network.zero_grad(set_to_none=True)
            with torch.autocast(worker.device.type, torch.bfloat16, enabled=stage.precision is Precision.BF16):
                loss = nn.functional.cross_entropy(network(images).logits, classes)
            loss.backward()
        _wait(worker)
        return STEPS * stage.batch / (time.perf_counter() - began)

    return run


def _loop(recipe: Recipe, worker: Worker) -> Callable[[], float]:
    stage = recipe.fine_tuning.model_copy(update={"epochs": 1})
    samples = _samples(recipe, STEPS * stage.batch)
    network = build_network(recipe.network, {HEAD: 2}, stage.input.side)

    def run() -> float:
        task = ClassificationTask(
            network, stage, samples, samples.select(np.zeros(0, np.int64)), Normaliser((0.7,) * 3, (0.2,) * 3), worker, multi_label=False, seed=0
        )
        times: list[float] = []
        with TemporaryDirectory() as folder:
            options = LoopOptions(Path(folder), "benchmark", recipe.system, 0, stage.average_decay, stage.precision)
            train(task, options, worker, lambda step: times.append(time.perf_counter()) if step in (FIRST, LAST) else None)
            _wait(worker)
        return (LAST - FIRST) * stage.batch / (times[1] - times[0])

    return run


def _wait(worker: Worker) -> None:
    if worker.device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
