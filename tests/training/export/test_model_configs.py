"""Tests of the configurations that Triton reads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from services.common.model_repository import CONFIG_FILE, CPU_CONFIG_FILE, read_model_config
from services.common.releases import ReleaseStore, Role, sha256_of
from tests.paths import ROOT
from tests.training.small import small_network
from training.export.model_configs import write_model_configs
from training.export.onnx_model import ServedNetwork, export_onnx

pytestmark = pytest.mark.slow

SIDE = 64
KINDS = model_config_pb2.ModelInstanceGroup


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = ServedNetwork(small_network(16), [0.7, 0.6, 0.7], [0.2, 0.25, 0.15], 1.0).eval()
    path = tmp_path_factory.mktemp("repository") / "small_net" / "1" / "model.onnx"
    export_onnx(network, SIDE, path)
    (path.parent / "model.int8.onnx").write_bytes(b"quantised")
    write_model_configs(path.parents[1], path, SIDE, max_batch=8, cpu_file="model.int8.onnx")
    return path.parents[1]


def _parsed(path: Path) -> model_config_pb2.ModelConfig:
    return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())


def test_the_configuration_is_read_back(folder: Path) -> None:
    config = read_model_config(folder)
    assert (config.name, config.max_batch_size) == (folder.name, 8)
    assert (config.input_name, config.input_shape) == ("images", (SIDE, SIDE, 3))
    assert config.output_shapes == {"logits": (2,), "embedding": (16,), "patch_embeddings": (4, 4, 16), "class_activations": (4, 4, 2)}


@pytest.mark.parametrize(
    ("name", "kind", "file", "parameter"),
    [(CONFIG_FILE, KINDS.KIND_GPU, "model.onnx", "gpu_mem_limit"), (CPU_CONFIG_FILE, KINDS.KIND_CPU, "model.int8.onnx", "intra_op_thread_count")],
)
def test_each_device_has_its_instances_file_limits_and_warm_up(folder: Path, name: str, kind: int, file: str, parameter: str) -> None:
    config = _parsed(folder / name)
    assert [group.kind for group in config.instance_group] == [kind]
    assert config.default_model_filename == file
    assert config.parameters["sha256"].string_value == sha256_of(folder / "1" / file)
    assert config.parameters[parameter].string_value
    sizes = list(range(1, 9)) if kind == KINDS.KIND_GPU else [1, 2, 4, 8]
    assert [sample.batch_size for sample in config.model_warmup] == sizes
    assert config.dynamic_batching.default_queue_policy.allow_timeout_override


def test_every_model_of_the_releases_has_configurations_for_both_devices() -> None:
    for release in ReleaseStore(ROOT / "releases", ROOT / "model_repository").releases:
        for model in {model.model: model for model in release.models}.values():
            for name, role in ((CONFIG_FILE, Role.GPU), (CPU_CONFIG_FILE, Role.CPU)):
                config = _parsed(ROOT / "model_repository" / model.model / name)
                assert config.default_model_filename == model.files[role].file
                assert config.parameters["sha256"].string_value == model.files[role].sha256
                sizes = list(range(1, 33)) if name == CONFIG_FILE else [1, 2, 4, 8, 16, 32]
                assert [sample.batch_size for sample in config.model_warmup] == sizes
                assert config.input == _parsed(ROOT / "model_repository" / model.model / CONFIG_FILE).input
