"""Time of the forward pass of the network of every recipe of cells, in torch, on a GPU if there is one.

    python -m tests.benchmarks.networks

Weights are drawn anew: they do not change the time. Batches lie on the device already, so that copying is left out; float16 is measured
on GPUs only. Services run the same networks as ONNX files; `make bench-releases` measures those, on a CPU.
"""

from __future__ import annotations

import statistics
import time
from typing import Any, cast

import torch
from torch import Tensor

from training.architectures.build import build_network
from training.architectures.network import HEAD, Network
from training.learning.devices import Worker, start_worker
from training.recipes.config import load_recipe

RECIPES = ("plain_resnet", "dss", "dl4all_cnn", "dl4all_vit", "histotnet", "adaptive_unsharpening", "allnet")
BATCHES = (1, 8, 32)
ROUNDS = 20
WARM_UP = 3


def main() -> None:
    """Print one line per recipe and arithmetic."""
    with start_worker("auto") as worker, torch.inference_mode():
        on_gpu = worker.device.type == "cuda"
        print(
            f"{torch.cuda.get_device_name() if on_gpu else 'CPU'}, torch {torch.__version__}, {torch.get_num_threads()} threads, {ROUNDS} rounds, medians"
        )
        print(
            "| recipe | arithmetic | "
            + " | ".join(f"ms for {n}" for n in BATCHES)
            + f" | images/s at {BATCHES[-1]} |\n|---|---|"
            + "---|" * (len(BATCHES) + 1)
        )
        _times(RECIPES[0], torch.float32, worker)  # the first calls load shared libraries
        for name in RECIPES:
            for dtype in (torch.float32, torch.float16) if on_gpu else (torch.float32,):
                times = _times(name, dtype, worker)
                words = " | ".join(f"{1e3 * t:.2f}" for t in times)
                print(f"| {name} | {str(dtype).removeprefix('torch.')} | {words} | {BATCHES[-1] / times[-1]:.0f} |")


def _times(recipe: str, dtype: torch.dtype, worker: Worker) -> list[float]:
    given = load_recipe(recipe)
    side = given.fine_tuning.input.side
    network: Network = (
        cast(Any, build_network(given.network, {HEAD: 2}, side)).to(device=worker.device, dtype=dtype, memory_format=torch.channels_last).eval()
    )
    images = [torch.randn(n, 3, side, side, device=worker.device, dtype=dtype).to(memory_format=torch.channels_last) for n in BATCHES]
    return [_median(network, batch, worker) for batch in images]


def _median(network: Network, batch: Tensor, worker: Worker) -> float:
    """Seconds of one forward pass, with the wait for its end."""
    taken = []
    for _ in range(WARM_UP + ROUNDS):
        _wait(worker)
        began = time.perf_counter()
        network(batch)
        _wait(worker)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[WARM_UP:])


def _wait(worker: Worker) -> None:
    if worker.device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
