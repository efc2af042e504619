"""Tests of importing published ALLNet checkpoints."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from services.common.engines.onnx_runtime import open_session
from training.architectures.build import Architecture, NetworkConfig, build_network
from training.architectures.lbp import Kernel
from training.architectures.network import HEAD
from training.errors import ArrayFileError
from training.export.allnet import import_allnet, load_allnet

pytestmark = pytest.mark.slow


def _published(path: Path, architecture: Architecture, classes: int) -> Path:
    """A state dict with the names of the original program."""
    network = build_network(NetworkConfig(architecture=architecture, kernel=Kernel.GAUSSIAN, lbp_relu=False), {HEAD: classes}, 224)
    names = {n: n.removeprefix("backbone.").replace(f"heads.{HEAD}.", "fc.") for n in network.state_dict()}
    torch.save({names[n]: t for n, t in network.state_dict().items()}, path)
    return path


@pytest.mark.parametrize(("architecture", "classes"), [(Architecture.RESNET18_LBP, 38), (Architecture.RESNET34_LBP, 2)])
def test_architecture_and_classes_are_found(tmp_path: Path, architecture: Architecture, classes: int) -> None:
    _, imported = load_allnet(_published(tmp_path / "a.pt", architecture, classes))
    assert (imported.architecture, imported.classes) == (architecture, classes)


@pytest.mark.shared_data
def test_the_exported_file_says_what_the_original_program_says(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "allnet_adp_checkpoints"
    imported = import_allnet(folder / "resnet18_lbcnn_level1.pt", tmp_path / "allnet.onnx")
    assert imported.gap is not None
    assert imported.gap <= 1e-4
    images = np.random.default_rng(20261122).integers(0, 256, (4, 3, 224, 224)).astype(np.uint8).transpose(0, 2, 3, 1)
    logits, embedding, places = open_session(tmp_path / "allnet.onnx", 1).run(
        ["logits", "embedding", "patch_embeddings"], {"images": np.ascontiguousarray(images)}
    )
    np.testing.assert_allclose(logits, np.loadtxt(folder / "level1_logits.csv", delimiter=","), atol=1e-4)
    assert (embedding.shape, places.shape) == ((4, 512), (4, 7, 7, 512))


class _Code:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("executed"),))


@pytest.mark.parametrize("content", ["code", "text", "list", "other names", "lacking", "unlike"])
def test_anything_else_is_refused_and_no_code_runs(tmp_path: Path, content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.pt"
    if content == "code":
        path.write_bytes(pickle.dumps(_Code()))
    elif content == "text":
        path.write_text("no checkpoint", encoding="utf-8")
    elif content == "list":
        torch.save([1, 2], path)
    elif content == "other names":
        torch.save({"weight": torch.zeros(1)}, path)
    else:
        _published(path, Architecture.RESNET18_LBP, 9)
        weights = torch.load(path, weights_only=True)
        if content == "lacking":
            del weights["layer2.0.conv1.1.weight"]
        else:
            weights["conv1.weight"] = torch.zeros(64, 3, 3, 3)
        torch.save(weights, path)
    with pytest.raises(ArrayFileError, match=r"a\.pt is not"):
        import_allnet(path, tmp_path / "out.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pt"]
