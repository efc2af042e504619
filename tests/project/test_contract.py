"""The outward contract is kept: buf finds changes that would break its callers, and every proto can be compiled for Java and C#."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import google.rpc
import pytest
from google.protobuf import descriptor_pb2

from deploy.ci import java_stubs
from tests.paths import ROOT

BUF = str(Path(sys.executable).parent / "buf")
PROTOS = ROOT / "protos"
OUTWARD = {
    "dl4all/diagnosis/v1/diagnosis.proto",
    "dl4all/diagnosis/v1/library.proto",
    "dl4all/imaging/v1/imaging.proto",
    "dl4all/preprocessing/v1/enhanced_cell.proto",
    "dl4all/retrieval/v1/library.proto",
    "dl4all/retrieval/v1/neighbour.proto",
}


def _all_but_protos(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name not in ("status.proto", "error_details.proto", "code.proto")]


@pytest.fixture
def contract(tmp_path: Path) -> Path:
    """A copy of the contract that may be changed."""
    shutil.copytree(PROTOS, tmp_path / "protos")
    shutil.copytree(Path(next(iter(google.rpc.__path__))), tmp_path / "build" / "googleapis" / "google" / "rpc", ignore=_all_but_protos)
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    return tmp_path


def _breaking(contract: Path) -> subprocess.CompletedProcess[str]:
    command = [BUF, "breaking", "--against", "protos/baseline.binpb"]
    return subprocess.run(command, cwd=contract, capture_output=True, text=True, check=False)


def _change(contract: Path, file: str, old: str, new: str) -> None:
    path = contract / "protos" / file
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, old
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_the_baseline_holds_the_outward_contract() -> None:
    baseline = descriptor_pb2.FileDescriptorSet.FromString((PROTOS / "baseline.binpb").read_bytes())
    assert {file.name for file in baseline.file if file.name.startswith("dl4all/")} == OUTWARD


def test_the_baseline_records_the_contract_as_it_is(contract: Path) -> None:
    command = [BUF, "build", "--path", "protos/dl4all/diagnosis", "--exclude-source-info", "--output", "now.binpb"]
    subprocess.run(command, cwd=contract, check=True)
    now, recorded = (descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes()) for path in (contract / "now.binpb", PROTOS / "baseline.binpb"))
    assert now == recorded, "the contract grew: run make protos-baseline, and commit protos/baseline.binpb"


def test_the_contract_keeps_what_the_baseline_promises(contract: Path) -> None:
    done = _breaking(contract)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("diagnosis/v1/diagnosis.proto", "  float network_weight = 6;", "  float network_weight = 66;"),
        ("diagnosis/v1/diagnosis.proto", "  rpc MeasureFocus(MeasureFocusRequest) returns (MeasureFocusResponse);\n", ""),
        ("diagnosis/v1/library.proto", "  repeated int64 addition_ids = 1;", "  repeated string addition_ids = 1;"),
        ("imaging/v1/imaging.proto", "  float blur = 7;", "  double blur = 7;"),
        ("retrieval/v1/neighbour.proto", "string patient = 5;", "string pseudonym = 5;"),
        ("preprocessing/v1/enhanced_cell.proto", 'java_package = "com.dl4all.preprocessing.v1"', 'java_package = "dl4all.preprocessing.v1"'),
    ],
)
def test_what_would_break_a_caller_is_found(contract: Path, file: str, old: str, new: str) -> None:
    _change(contract, f"dl4all/{file}", old, new)
    done = _breaking(contract)
    assert done.returncode != 0
    assert f"protos/dl4all/{file}" in done.stdout or "previously present" in done.stdout, done.stdout


def test_additions_and_the_inner_contract_are_free(contract: Path) -> None:
    _change(
        contract,
        "dl4all/diagnosis/v1/diagnosis.proto",
        "  repeated string limits = 10;\n}",
        "  repeated string limits = 10;\n  // New.\n  string extra = 11;\n}",
    )
    _change(contract, "dl4all/patching/v1/patching.proto", "  bool omit_crops = 5;", "  int32 omit_crops = 5;")
    done = _breaking(contract)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", java_stubs.protos(), ids=lambda path: path.stem)
def test_every_proto_names_its_package_in_java_and_csharp(path: Path) -> None:
    area = path.parent.parent.name
    text = path.read_text(encoding="utf-8")
    for option in (
        f'option csharp_namespace = "Dl4all.{area.capitalize()}.V1";',
        "option java_multiple_files = true;",
        f'option java_package = "com.dl4all.{area}.v1";',
    ):
        assert option in text, option


def test_the_protos_were_compiled_for_java_as_they_are() -> None:
    assert java_stubs.recorded_digest() == java_stubs.digest(), "the protos changed: run make java-stubs, and commit protos/java-stubs.txt"
