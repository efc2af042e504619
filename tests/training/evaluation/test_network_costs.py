"""Tests of what networks cost: operations counted by hand, the published numbers of parameters, the rows of the table."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from training.architectures.build import build_network
from training.architectures.network import HEAD, parameter_count
from training.evaluation import network_costs
from training.evaluation.network_costs import CLASSES, NETWORKS, REFERENCE, Costs, main, measure, multiply_accumulates, row


class _Twice(nn.Module):
    """One linear layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(self.layer(x))
        return y


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (nn.Conv2d(3, 5, 3, padding=1), 8 * 8 * 5 * 3 * 9),
        (nn.Conv2d(3, 5, 3, stride=2, padding=1, bias=False), 4 * 4 * 5 * 3 * 9),
        (nn.Conv2d(3, 6, 3, groups=3), 6 * 6 * 6 * 9),
        (nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32, 7)), 8 * 8 * 2 * 3 + 32 * 7),
        (nn.Sequential(nn.AdaptiveAvgPool2d((2, 2)), nn.Flatten(), nn.Linear(12, 4), _Twice()), 12 * 4 + 2 * 4 * 4),
    ],
    ids=["convolution", "stride", "groups", "layers that multiply nothing", "a layer called twice"],
)
def test_operations_counted_by_hand(network: nn.Module, expected: int) -> None:
    assert multiply_accumulates(network.eval(), torch.zeros(1, 3, 8, 8)) == expected


def test_counting_leaves_no_hooks_behind() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Linear(9, 9)).eval()
    with pytest.raises(RuntimeError, match="shape"):
        multiply_accumulates(network, torch.zeros(1, 3, 8, 8))
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize(("name", "published"), [("ResNet18", 1_814_073_344), ("ResNet34", 3_663_761_408)])
def test_operations_of_known_networks(name: str, published: int) -> None:
    network = build_network(NETWORKS[name], {HEAD: 1000}, 224).eval()
    assert multiply_accumulates(network, torch.zeros(1, 3, 224, 224)) == published


def test_all_networks_are_those_of_the_papers() -> None:
    trained = {name: parameter_count(build_network(config, {HEAD: CLASSES}, 224)) for name, config in NETWORKS.items()}
    assert trained == {
        "ALLNet ResNet18": 264_130,
        "ALLNet ResNet34": 342_082,
        "ResNet18": 11_177_538,
        "ResNet34": 21_285_698,
        "HistoNet VGG": 2_988_578,
        "EfficientNet-Lite0": 3_373_570,
    }
    assert not any(config.lbp_relu for name, config in NETWORKS.items() if name.startswith("ALLNet"))


def test_the_ratio_is_that_of_the_same_round() -> None:
    """The machine slowed down by a factor of ten, and the ratio stayed."""
    reference = Costs(11_177_538, 11_177_538, 1_814_000_000, 3 * 2**20, (10.0, 100.0, 100.0))
    own = Costs(264_130, 752_578, 123_456_789, 2**19, (5.0, 50.0, 10.0))
    assert row("small", own, reference) == "| small | 264,130 | 752,578 | 123.5 | 0.5 | 10.0 | 0.50 |"
    assert row(REFERENCE, reference, reference).endswith("| 3.0 | 100.0 | 1.00 |")


def test_networks_take_turns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    turns: list[tuple[str, int]] = []

    def took(session: str, _pixels: object, images: int) -> float:
        turns.append((session, images))
        return float(len(turns))

    monkeypatch.setattr(network_costs, "export_onnx", lambda _network, _side, path: path.write_bytes(b"file"))
    monkeypatch.setattr(network_costs, "open_session", lambda path, threads: path.stem)
    monkeypatch.setattr(network_costs, "_milliseconds", took)
    costs = measure({name: NETWORKS[name] for name in ("ALLNet ResNet18", REFERENCE)}, 32, 2, 3, tmp_path)
    assert turns == [("resnet18_lbp", 1), ("resnet18", 1), *[("resnet18_lbp", 3), ("resnet18", 3)] * 2], "the first calls load libraries"
    assert costs["ALLNet ResNet18"].milliseconds == (3.0, 5.0)
    assert costs[REFERENCE].milliseconds == (4.0, 6.0)


@pytest.mark.slow
def test_a_network_is_measured_as_it_is_served(tmp_path: Path) -> None:
    (found,) = measure({"small": NETWORKS["ALLNet ResNet18"]}, side=32, rounds=3, images=1, folder=tmp_path).values()
    assert (found.trained, found.stored) == (264_130, 264_130 + 488_448)
    assert found.size / (4 * found.stored) == pytest.approx(1.0, abs=0.1), "batch normalisation may be merged, and the graph is small"
    assert len(found.milliseconds) == 3
    assert min(found.milliseconds) > 0


@pytest.mark.parametrize(
    ("arguments", "message"), [(["--rounds", "0"], "at least 1"), (["--side", "100"], "at least 194 px"), (["--side", "225"], "multiple of 32")]
)
def test_what_cannot_be_measured_is_told(arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        main(arguments)
