"""``dl4all call``: a generic client by reflection; every RPC from the lines of ``docs/calling.md``."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from clients.cli.call import CallError, ReflectedServer, put_file, read_messages
from clients.cli.stack.parts import Ports
from dl4all.classification.v1 import classification_pb2
from dl4all.diagnosis.v1 import diagnosis_pb2, library_pb2
from dl4all.patching.v1 import patching_pb2
from dl4all.preprocessing.v1 import preprocessing_pb2
from dl4all.retrieval.v1 import retrieval_pb2
from services.common.parts import SERVICES
from tests.integration.conftest import start_server
from tests.paths import ROOT
from tests.running import Stack

MODULES = (classification_pb2, diagnosis_pb2, library_pb2, patching_pb2, preprocessing_pb2, retrieval_pb2)
WANT_A_STORE = {"LibraryService/AddReferences", "RetrievalService/AddReferences", "RetrievalService/WithdrawReferences"}
"""What a server refuses that was not given a file for it; tried in ``test_library.py``."""
RPCS = {f"{s.name}/{m.name}" for module in MODULES for s in module.DESCRIPTOR.services_by_name.values() for m in s.methods} - WANT_A_STORE


def _shown_lines() -> str:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "calling.md").read_text(encoding="utf-8"), re.S)
    return "".join(block for block in blocks if "dl4all call" in block)


def test_every_rpc_from_the_lines_of_the_page(stack: Stack, tmp_path: Path) -> None:
    lines = _shown_lines()
    assert set(re.findall(r"dl4all call (\w+Service/\w+)", lines)) == RPCS
    for name in SERVICES:
        lines = lines.replace(f"localhost:{Ports.default().grpc[name]}", stack[name].address)
    lines = re.sub(r"^(dl4all call (?!.*--address).*)$", rf"\1 --address {stack['gateway'].address}", lines, flags=re.M)
    lines = lines.replace("$PWD/.venv/bin", str(Path(sys.executable).parent))
    done = subprocess.run(["bash", "-e", "-o", "pipefail", "-c", lines], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert '"finding": "FINDING_INDETERMINATE"' in (tmp_path / "diagnosed.json").read_text()
    for said in (
        '"status": "SERVING"',
        '"finding": "FINDING_INDETERMINATE"',
        '"specimen": {',
        '"score": ',
        '"neighbours": ',
        '"references": ',
        '"activations": ',
        '"embedder": ',
        '"outcomes": ',
    ):
        assert said in done.stdout, said


def test_reflection_is_a_setting() -> None:
    running = start_server(DL4ALL_REFLECTION="false")
    try:
        server = ReflectedServer(running.address)
        with pytest.raises(Exception, match="UNIMPLEMENTED"):
            server.methods()
        server.close()
    finally:
        running.terminate()
        running.wait()


def test_what_does_not_fit_is_told(server: object) -> None:
    reflected = ReflectedServer(server.address)  # type: ignore[attr-defined]
    try:
        assert "dl4all.diagnosis.v1.DiagnosisService/Diagnose" in reflected.methods()
        for name, messages, said in (
            ("NoService/Diagnose", [{}], "No service here is called"),
            ("Diagnose", [{}], "No service here is called"),
            ("DiagnosisService/Nothing", [{}], "has no RPC called"),
            ("DiagnosisService/Diagnose", [{"nothing": 1}], "does not fit"),
            ("DiagnosisService/Diagnose", [], "takes one message"),
        ):
            with pytest.raises(CallError, match=said):
                list(reflected.call(name, messages))
        assert list(reflected.call("DiagnosisService/ListReleases", [{"unknown": 1}], ignore_unknown=True))
    finally:
        reflected.close()


def test_messages_are_read_one_after_the_other() -> None:
    assert read_messages(' {"a": 1}\n{"b": {}}  ') == [{"a": 1}, {"b": {}}]
    assert read_messages("") == []
    for wrong in ("[1]", "{", "nothing", '{"a": 1} x'):
        with pytest.raises(CallError):
            read_messages(wrong)


def test_a_file_is_put_where_the_path_says(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\x00\x01")
    message: dict = {}
    put_file(message, f"cells.0.pixels={tmp_path / 'file'}")
    put_file(message, f"cells.1.pixels={tmp_path / 'file'}")
    put_file(message, f"image={tmp_path / 'file'}")
    assert message == {"cells": [{"pixels": "AAE="}, {"pixels": "AAE="}], "image": "AAE="}
    for wrong in ("image", f"={tmp_path / 'file'}", "image=/no/such/file", f"cells.7.pixels={tmp_path / 'file'}", f"image.x={tmp_path / 'file'}"):
        with pytest.raises(CallError):
            put_file(message, wrong)
