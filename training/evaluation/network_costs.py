"""What a network costs: parameters, operations, size of the ONNX file, CPU milliseconds of one image.

    dl4all study network-costs [--side 224] [--rounds 21] [--images 5]

Weights are drawn anew: they do not change the costs. The networks run as they are served, as float32 ONNX files with one thread and one image at a
time. They take turns, round after round. What counts is the CPU time of the process, not elapsed time. Ratios are taken within a round.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor, nn

from services.common.engines.onnx_runtime import open_session
from training.architectures.build import Architecture, NetworkConfig, build_network
from training.architectures.network import HEAD, parameter_count
from training.command import explained, program_parser
from training.errors import RecipeError
from training.export.onnx_model import INPUT, LOGITS, ServedNetwork, export_onnx

CLASSES: Final = 2
REFERENCE: Final = "ResNet18"
"""The network that the others are compared with."""
NETWORKS: Final = {
    "ALLNet ResNet18": NetworkConfig(architecture=Architecture.RESNET18_LBP, lbp_relu=False),
    "ALLNet ResNet34": NetworkConfig(architecture=Architecture.RESNET34_LBP, lbp_relu=False),
    REFERENCE: NetworkConfig(architecture=Architecture.RESNET18),
    "ResNet34": NetworkConfig(architecture=Architecture.RESNET34),
    "HistoNet VGG": NetworkConfig(architecture=Architecture.HISTONET_VGG),
    "EfficientNet-Lite0": NetworkConfig(architecture=Architecture.EFFICIENTNET_LITE0),
}
"""By their name in the table."""
MIB: Final = 2**20
HEADER: Final = (
    "| network | trained parameters | all parameters | million multiply-accumulates | ONNX file, MiB | CPU ms an image | against "
    f"{REFERENCE} |\n|---|---|---|---|---|---|---|"
)


class Costs(NamedTuple):
    """Costs of a network.

    Attributes:
        trained: parameters that are trained.
        stored: all parameters.
        operations: multiply-accumulates of one image.
        size: bytes of the ONNX file.
        milliseconds: CPU time of one image, by round.
    """

    trained: int
    stored: int
    operations: int
    size: int
    milliseconds: tuple[float, ...]


def multiply_accumulates(network: nn.Module, image: Tensor) -> int:
    """Multiply-accumulates of the convolutions and linear layers for one image. Padding counts as pixels do; biases do not count.

    Args:
        network: in evaluation mode.
        image: a batch of one.
    """
    counted: list[int] = []

    def count(layer: Any, _given: object, output: Tensor) -> None:
        counted.append(output.numel() * layer.weight[0].numel())

    hooks = [layer.register_forward_hook(count) for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    try:
        with torch.inference_mode():
            network(image)
    finally:
        for hook in hooks:
            hook.remove()
    return sum(counted)


def measure(networks: Mapping[str, NetworkConfig], side: int, rounds: int, images: int, folder: Path) -> dict[str, Costs]:
    """Costs of networks of ``CLASSES`` classes, by name.

    Args:
        networks: what to measure.
        side: side of an image in px.
        rounds: turns of every network.
        images: images of a turn.
        folder: where the ONNX files are written.

    Raises:
        RecipeError: a network cannot take this side.
    """
    built = {name: build_network(config, {HEAD: CLASSES}, side).eval() for name, config in networks.items()}
    files = {name: folder / f"{networks[name].architecture.value}.onnx" for name in built}
    for name in track(built, description="exports"):
        export_onnx(ServedNetwork(built[name], [0.5] * 3, [0.25] * 3, 1.0), side, files[name])
    sessions = {name: open_session(path, threads=1) for name, path in files.items()}
    pixels = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
    taken: dict[str, list[float]] = {name: [] for name in built}
    for session in sessions.values():
        _milliseconds(session, pixels, 1)
    for _ in track(range(rounds), description="rounds", refresh_per_second=1):
        for name, session in sessions.items():
            taken[name].append(_milliseconds(session, pixels, images))
    image = torch.zeros(1, 3, side, side)
    return {
        name: Costs(
            parameter_count(network),
            parameter_count(network, trainable=False),
            multiply_accumulates(network, image),
            files[name].stat().st_size,
            tuple(taken[name]),
        )
        for name, network in built.items()
    }


def row(name: str, costs: Costs, reference: Costs) -> str:
    """A network as a row of the table."""
    ratio = statistics.median(own / other for own, other in zip(costs.milliseconds, reference.milliseconds, strict=True))
    return (
        f"| {name} | {costs.trained:,} | {costs.stored:,} | {costs.operations / 1e6:,.1f} | {costs.size / MIB:.1f} "
        f"| {statistics.median(costs.milliseconds):.1f} | {ratio:.2f} |"
    )


def _milliseconds(session: onnxruntime.InferenceSession, pixels: NDArray[np.uint8], images: int) -> float:
    """CPU ms of an image."""
    started = time.process_time()
    for _ in range(images):
        session.run([LOGITS], {INPUT: pixels})
    return 1000 * (time.process_time() - started) / images


@explained
def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = program_parser("network-costs", __doc__)
    parser.add_argument("--side", type=int, default=224, help="side of an image in px (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=21, help="turns of every network (default: %(default)s)")
    parser.add_argument("--images", type=int, default=5, help="images of a turn (default: %(default)s)")
    given = parser.parse_args(arguments)
    if min(given.side, given.rounds, given.images) < 1:
        raise RecipeError("--side, --rounds and --images are at least 1.")
    with TemporaryDirectory() as folder:
        costs = measure(NETWORKS, given.side, given.rounds, given.images, Path(folder))
    print(HEADER)
    for name, found in costs.items():
        print(row(name, found, costs[REFERENCE]))


if __name__ == "__main__":
    main()
