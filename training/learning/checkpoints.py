"""The state of a training in one file, from which it goes on as if nothing had happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from training.errors import ArrayFileError
from training.files.array_file import read_arrays, write_arrays

_CHECKPOINT, _NETWORK = "checkpoint 1", "network 1"
_PARTS: Final = ("network", "average", "best")
Weights = dict[str, Tensor]


@dataclass
class Progress:
    """How far a training is; everything random follows from the seed and ``step``.

    Attributes:
        step: steps that are done.
        history: one row of figures per finished epoch.
        loss_sum: sum of the losses of the steps of the epoch under way, 0-d float64.
        average: moving average of the weights, or empty.
        best: weights of the best epoch, or empty.
        best_score: score of the best epoch, larger is better.
        memory: numbers that the steps of a task leave for later ones.
    """

    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    loss_sum: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    average: Weights = field(default_factory=dict)
    best: Weights = field(default_factory=dict)
    best_score: tuple[float, ...] = ()
    memory: dict[str, float] = field(default_factory=dict)


def save_checkpoint(path: Path, identity: str, network: nn.Module, optimiser: Optimizer, progress: Progress) -> None:
    """Write the state; the file changes only when the new state is complete on the disk.

    Args:
        path: the file.
        identity: what is trained on what; ``load_checkpoint`` refuses another.
        network: its weights and buffers.
        optimiser: its state per parameter; rates are functions of the step and not kept.
        progress: all else.
    """
    weights = {"network": network.state_dict(), "average": progress.average, "best": progress.best}
    arrays = {f"{part}/{name}": to_array(tensor) for part in _PARTS for name, tensor in weights[part].items()}
    for index, values in optimiser.state_dict()["state"].items():
        arrays.update({f"optimiser/{index}/{key}": to_array(torch.as_tensor(value)) for key, value in values.items()})
    about = {
        "kind": _CHECKPOINT,
        "identity": identity,
        "step": progress.step,
        "history": progress.history,
        "loss_sum": float(progress.loss_sum).hex(),
        "best_score": list(progress.best_score),
        "memory": {name: float(value).hex() for name, value in progress.memory.items()},
    }
    write_arrays(path, arrays, about)


def load_checkpoint(path: Path, identity: str, network: nn.Module, optimiser: Optimizer) -> Progress:
    """Put a saved state into a network and an optimiser.

    Raises:
        ArrayFileError: the file is damaged or belongs to another training.
    """
    arrays, about = read_arrays(path)
    if about.get("kind") != _CHECKPOINT or about["identity"] != identity:
        raise ArrayFileError(f"{path} belongs to a training with other options or data. Give another --name, or delete its folder.")
    parts: dict[str, Weights] = {part: {} for part in _PARTS}
    states: dict[int, dict[str, Tensor]] = {}
    for name, array in arrays.items():
        part, rest = name.split("/", 1)
        if part in parts:
            parts[part][rest] = torch.from_numpy(array)
        else:
            index, key = rest.split("/", 1)
            states.setdefault(int(index), {})[key] = torch.from_numpy(array)
    network.load_state_dict(parts["network"])
    optimiser.load_state_dict({"state": states, "param_groups": optimiser.state_dict()["param_groups"]})
    return Progress(
        about["step"],
        about["history"],
        torch.tensor(float.fromhex(about["loss_sum"]), dtype=torch.float64),
        parts["average"],
        parts["best"],
        tuple(about["best_score"]),
        {name: float.fromhex(value) for name, value in about.get("memory", {}).items()},
    )


def save_network(path: Path, network: nn.Module, about: Mapping[str, object]) -> None:
    """Write the weights and buffers of a finished network with what it is."""
    write_arrays(path, {name: to_array(tensor) for name, tensor in network.state_dict().items()}, {"kind": _NETWORK, **about})


def load_network(path: Path) -> tuple[Weights, dict[str, Any]]:
    """Weights and description of a finished network.

    Raises:
        ArrayFileError: the file is missing, damaged or something else.
    """
    arrays, about = read_arrays(path)
    if about.pop("kind", None) != _NETWORK:
        raise ArrayFileError(f"{path} is not a finished network.")
    return {name: torch.from_numpy(array) for name, array in arrays.items()}, about


def to_array(tensor: Tensor) -> NDArray[np.generic]:
    """A copy of a tensor as an array in the CPU's memory."""
    return np.array(tensor.detach().cpu().contiguous().numpy())
