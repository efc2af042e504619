"""The client as others install it: its wheel at both ends of its ranges against a real server, and every example that its pages show."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
import textwrap
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dl4all_client
from deploy.ci.lock import lock_path
from dl4all_client import AsyncDiagnosisClient, DiagnosisClient, Reference
from services.common.phantom import CellKind, PhantomOptions, encode_png, single_cell, smear_field
from services.common.phantom.slide import PhantomSlide, SlideOptions
from services.common.settings import CommonSettings
from services.embedded import embedded_services
from tests.integration.conftest import ServerProcess, start_server
from tests.paths import ROOT

CLIENT = ROOT / "clients" / "python"
README = CLIENT / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
CALLS = """
import asyncio, importlib.metadata, sys
from pathlib import Path
from dl4all_client import AsyncDiagnosisClient, DiagnosisClient, ServiceError, diagnose_request, finding_name

address, image = sys.argv[1], Path(sys.argv[2]).read_bytes()

async def both():
    async with AsyncDiagnosisClient(address) as client:
        answers = [a async for a in client.diagnose_stream([diagnose_request(image, request_id="a"), diagnose_request(b"", request_id="b")])]
        total = (await client.diagnose(image)).counts.total
        return {"cells": total, **{name: type(answer).__name__ for name, answer in answers}}

with DiagnosisClient(address) as client:
    print(finding_name(client.diagnose(image, explain=True).finding), client.diagnose_specimen([image, image]).duplicates)
    try:
        client.diagnose(b"nothing")
    except ServiceError as error:
        print(error.code, error.reason, error.field)
print(sorted(asyncio.run(both()).items()))
print(*(importlib.metadata.version(name) for name in ("grpcio", "protobuf")))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that the examples read."""
    made = tmp_path_factory.mktemp("client")
    field = encode_png(smear_field(4, PhantomOptions(width=640, height=480, cells=4)))
    (made / "specimen").mkdir()
    for path in (made / "smear.jpg", made / "specimen" / "1.jpg", made / "specimen" / "2.jpg"):
        path.write_bytes(field)
    (made / "specimen" / "3.jpg").write_bytes(b"no image")
    (made / "cell.png").write_bytes(encode_png(single_cell(6, CellKind.LYMPHOCYTE)))
    PhantomSlide(1, SlideOptions(width=1024, height=1024)).write(made / "slide.tif")
    return made


def _run(code: str, folder: Path, server: ServerProcess) -> str:
    code = code.replace("localhost:50051", server.address)
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("number", "said"),
    list(
        enumerate(
            [
                "INDETERMINATE True",
                "INDETERMINATE 1 images, 1 failed, 4 cells",
                "3.jpg IMAGE_UNKNOWN_FORMAT",
                " cells judged",
                "plain-resnet-1 plain_resnet True",
                "ADDITIONS_OFF",
            ]
        )
    ),
)
def test_every_example_of_the_readme_runs(number: int, said: str, folder: Path, server: ServerProcess) -> None:
    assert said in _run(EXAMPLES[number], folder, server)


def test_all_examples_are_tried() -> None:
    assert len(EXAMPLES) == 6


def test_the_example_of_the_project_runs(folder: Path, server: ServerProcess) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    assert "INDETERMINATE" in _run(code, folder, server)


def test_the_example_of_the_package_runs(folder: Path, server: ServerProcess) -> None:
    text = inspect.getdoc(dl4all_client)
    assert text is not None
    code = re.search(r"::\n\n((?:    .*\n|\n)+)", text)
    assert code is not None
    assert "INDETERMINATE" in _run(textwrap.dedent(code[1]), folder, server)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, out = tmp_path_factory.mktemp("source") / "client", tmp_path_factory.mktemp("dist")
    shutil.copytree(CLIENT, source, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__", "build"))
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        "--wheel-dir",
        str(out),
        str(source),
    ]
    subprocess.run(command, check=True)
    (found,) = out.glob("*.whl")
    return found


@pytest.mark.parametrize(("end", "versions"), [("client-oldest", ("1.81.1", "6.33.5")), ("client-newest", ("1.", "7."))])
def test_the_client_calls_a_server_at_both_ends_of_its_ranges(
    end: str, versions: tuple[str, str], wheel: Path, folder: Path, server: ServerProcess, tmp_path: Path
) -> None:
    venv.EnvBuilder(with_pip=False).create(tmp_path / "environment")
    python = tmp_path / "environment" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    subprocess.run([*pip, "--require-hashes", "--requirement", str(lock_path(end))], check=True)
    subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], check=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [str(python), "-c", CALLS, server.address, str(folder / "smear.jpg")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    finding, error, both, used = done.stdout.splitlines()
    assert finding == "INDETERMINATE 1"
    assert error == "INVALID_ARGUMENT IMAGE_UNKNOWN_FORMAT image"
    assert both == "[('a', 'Diagnosis'), ('b', 'ServiceError'), ('cells', 4)]"
    assert all(version.startswith(wanted) for version, wanted in zip(used.split(), versions, strict=True)), used


def _unreadable(image: bytes) -> Iterator[bytes]:
    yield image
    raise OSError("the disk is gone")


@pytest.fixture
def keeping(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that takes confirmed cells."""
    running = start_server(DL4ALL_RETRIEVAL_ADDITIONS=str(tmp_path / "additions.sqlite"))
    yield running
    running.terminate()
    running.wait()


async def test_what_ends_the_images_is_raised_as_it_is_over_a_real_channel(folder: Path, keeping: ServerProcess) -> None:
    image = (folder / "smear.jpg").read_bytes()
    facts: Any = {"source": "lab", "confirmed_by": "A", "idempotency_key": "k"}
    with DiagnosisClient(keeping.address) as client:
        with pytest.raises(OSError, match="the disk is gone"):
            client.diagnose_specimen(_unreadable(image))
        with pytest.raises(OSError, match="the disk is gone"):
            client.add_references((Reference(i, True, "blast", "P") for i in _unreadable(image)), **facts)
    async with AsyncDiagnosisClient(keeping.address) as asynchronous:
        with pytest.raises(OSError, match="the disk is gone"):
            await asynchronous.diagnose_specimen(_unreadable(image))
        with pytest.raises(OSError, match="the disk is gone"):
            await asynchronous.add_references((Reference(i, True, "blast", "P") for i in _unreadable(image)), **facts)
        assert (await asynchronous.diagnose(image)).cells, "the channel is whole"


async def test_the_same_over_services_in_this_process(folder: Path) -> None:
    image = (folder / "smear.jpg").read_bytes()
    async with embedded_services(CommonSettings()) as services:
        client = AsyncDiagnosisClient.over(services.stubs["gateway"], services.stubs["library"])
        with pytest.raises(OSError, match="the disk is gone"):
            await client.diagnose_specimen(_unreadable(image))
        assert (await client.diagnose_specimen([image])).images == 1
