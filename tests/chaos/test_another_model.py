"""A Triton that serves another file under the same name and version: its answers are never used."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import grpc
import onnx
import pytest

from clients.cli.stack.parts import Ports, service_part, triton_part
from dl4all.classification.v1 import classification_pb2, classification_pb2_grpc
from dl4all_client import ServiceError
from services.common.health import LIVE
from services.common.model_repository import CPU_CONFIG_FILE
from services.common.parts import TRITON
from services.common.releases import sha256_of
from tests.paths import ROOT
from tests.running import NOT_SERVING, TEST_SETTINGS, Running, eventually

MODEL = "plain_resnet_128"


@pytest.fixture
def other_repository(tmp_path: Path) -> Path:
    """The same network with one more remark in its file, and a configuration that states its checksum."""
    repository = tmp_path / "model_repository"
    shutil.copytree(ROOT / "model_repository", repository)
    path, config = repository / MODEL / "1" / "model.onnx", repository / MODEL / CPU_CONFIG_FILE
    old = sha256_of(path)
    network = onnx.load(str(path))
    network.doc_string = "another file"
    onnx.save(network, str(path))
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, sha256_of(path)))
    return repository


@pytest.fixture
def classification(triton_installed: None, other_repository: Path) -> Iterator[Running]:
    ports = Ports.free()
    triton = Running(triton_part(ports, further=("--model-repository", str(other_repository)))).start()
    running = Running(service_part("classification", ports, TEST_SETTINGS)).start()
    try:
        eventually(lambda: b"Started Metrics Service" in triton.log.read_bytes(), 60, f"{TRITON} is up")
        running.wait_serving(LIVE)
        yield running
    finally:
        running.end()
        triton.end()


def test_it_is_not_ready_and_not_called(classification: Running) -> None:
    assert classification.health() == NOT_SERVING
    request = classification_pb2.ClassifyRequest(release="plain-resnet-1", cells=[classification_pb2.ClassifyCell(pixels=bytes(128 * 128 * 3))])
    with classification.channel() as channel, pytest.raises(grpc.RpcError) as caught:
        classification_pb2_grpc.ClassificationServiceStub(channel).Classify(request, timeout=20)
    error = ServiceError.from_rpc(caught.value)
    assert (error.code, error.reason) == ("UNAVAILABLE", "MODEL_UNAVAILABLE")
    assert "the file" in error.message
