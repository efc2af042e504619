"""Workers of a training: on a CPU, on one GPU, or several processes started by torch's own launcher."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import cv2
import torch
from torch import distributed

from services.common.memory import keep_freed_memory
from training.errors import TrainingError
from training.recipes.config import Precision


def arithmetic(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """Context that gives a forward pass its precision."""
    return torch.autocast(device.type, torch.bfloat16) if precision is Precision.BF16 else nullcontext()


@dataclass(frozen=True)
class Worker:
    """One process of a training.

    Attributes:
        device: of this process.
        rank: 0..count-1; rank 0 writes files and shows progress.
        count: number of processes.
    """

    device: torch.device
    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0


@contextmanager
def start_worker(device: str = "auto") -> Iterator[Worker]:
    """Take the device and, under ``torchrun``, join the other processes.

    Deterministic algorithms are switched on: the same seed gives the same weights on the same kind of machine.

    Args:
        device: ``auto`` (a GPU if there is one), ``cpu`` or ``cuda``.

    Raises:
        TrainingError: a GPU is asked for and there is none.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise TrainingError(f"A device is auto, cpu or cuda, not {device!r}.")
    if device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("There is no GPU that torch can use; leave --device out, or install a torch with CUDA.")
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if not on_gpu:
        keep_freed_memory(of_any_size=True)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=on_gpu)
    torch.backends.cudnn.benchmark = False
    cv2.setNumThreads(1)
    count = int(os.environ.get("WORLD_SIZE", "1"))
    here = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(here)
    if count == 1:
        yield Worker(here)
        return
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield Worker(here, distributed.get_rank(), count)
    finally:
        distributed.destroy_process_group()


def wait_for_all(worker: Worker) -> None:
    """Wait until every process has called this."""
    if worker.count > 1:
        distributed.barrier()
