"""The two wheels in an empty environment and an empty folder: their content, their metadata, and that they serve.

Other packages come from the environment of the tests, which was installed by their locks. With ``DL4ALL_TEST_FULL_INSTALL`` set
(`make check-install`) a fresh clone is built and everything installed anew, by the lines of ``docs/install.md``.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Mapping
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from dl4all_client import DiagnosisClient
from services.common.phantom import CellKind, encode_png, single_cell
from tests.paths import ROOT

TOP_LEVEL = {"client": {"dl4all", "dl4all_client"}, "serving": {"services", "training", "clients"}}
FULL = bool(os.environ.get("DL4ALL_TEST_FULL_INSTALL"))
pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both wheels, built from copies of what is packaged, so that no build folder is left here."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    for name in tracked:
        if name and (ROOT / name).is_file() and not name.startswith(("docs/", "tests/", "releases/", "model_repository/")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(out)]
    subprocess.run([*command, "./clients/python", "."], cwd=source, check=True)
    (client,), (serving,) = out.glob("dl4all_client-*.whl"), out.glob("dl4all_serving-*.whl")
    return {"client": client, "serving": serving}


def _recipe_for_a_gpu(folder: Path) -> Path:
    """Run the lines of ``docs/install.md`` for a GPU as written, with the extra ``cpu``, in a fresh clone; returns its environment."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    text = (ROOT / "docs" / "install.md").read_text(encoding="utf-8").partition("## On a GPU")[2]
    lines = re.search(r"```sh\n(.*?)```", text, re.S)
    assert lines is not None
    commands = [line.replace("[gpu,", "[cpu,") for line in lines[1].splitlines() if not line.startswith("export") and not line.endswith("serve")]
    subprocess.run(["bash", "-ec", "\n".join(commands)], cwd=folder, env={**os.environ, "HOME": str(folder.parent)}, check=True)
    return folder.parent / "dl4all-gpu" / "bin"


@pytest.fixture(scope="module")
def installed(wheels: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the programs of an environment into which both wheels were installed by one command."""
    if FULL:
        return _recipe_for_a_gpu(tmp_path_factory.mktemp("clone") / "project")
    folder = tmp_path_factory.mktemp("environment")
    venv.EnvBuilder(with_pip=True).create(folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "of-the-tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--ignore-installed"]
    subprocess.run([*command, *map(str, wheels.values())], check=True)
    return folder / "bin"


def _run(installed: Path, folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("DL4ALL_", "PYTHONPATH"))}
    command = [str(installed / "dl4all"), *arguments]
    return subprocess.run(command, cwd=folder, env={**inherited, **environment}, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("which", sorted(TOP_LEVEL))
def test_top_level_names_of_a_wheel(wheels: Mapping[str, Path], which: str) -> None:
    with zipfile.ZipFile(wheels[which]) as wheel:
        names = {name.partition("/")[0] for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == TOP_LEVEL[which]


def test_no_public_index_can_supply_the_client(wheels: Mapping[str, Path]) -> None:
    with zipfile.ZipFile(wheels["serving"]) as wheel:
        (name,) = (n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(wheel.read(name).decode())
    (client,) = (r for r in map(Requirement, metadata.get_all("Requires-Dist", [])) if r.name == "dl4all-client")
    (pinned,) = client.specifier
    assert pinned.operator == "=="
    assert "+" in pinned.version, "a local version, which public indexes refuse"
    assert client.specifier.contains(wheels["client"].name.split("-")[1])
    assert not client.specifier.contains(pinned.version.partition("+")[0])


def test_what_is_imported_is_what_was_installed(installed: Path, tmp_path: Path) -> None:
    code = "import services, training, clients, dl4all_client; print(*(m.__file__ for m in (services, training, clients, dl4all_client)), sep='\\n')"
    done = subprocess.run([installed / "python", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert all(Path(line).is_relative_to(installed.parent) for line in done.stdout.splitlines())


@pytest.mark.parametrize("arguments", [("serve",), ("release", "list"), ("up", "--no-triton", "--free-ports")], ids=lambda a: a[0])
def test_an_empty_folder_says_in_one_line_what_to_set(installed: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = _run(installed, tmp_path, *arguments)
    assert done.returncode == 1
    said = [line for line in (done.stdout + done.stderr).splitlines() if "DL4ALL_HOME" in line]
    assert said
    assert str(tmp_path / "releases") in said[0]
    assert "Traceback" not in done.stderr + done.stdout


def test_it_serves_once_the_home_is_set(installed: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "DL4ALL_HOME": str(ROOT), "DL4ALL_METRICS_PORT": "0"}
    command = [str(installed / "dl4all"), "serve", "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            address = next(json.loads(line)["address"] for line in process.stderr if '"serving"' in line)
            with DiagnosisClient(address) as client:
                assert client.diagnose(encode_png(single_cell(5, CellKind.LYMPHOCYTE)), kind="cell").counts.total == 1
        finally:
            process.send_signal(signal.SIGTERM)
            process.stderr.read()
    assert process.returncode == 0
    assert list(tmp_path.iterdir()) == [], "nothing is written where it runs"


def test_a_page_of_the_command_line_is_complete(installed: Path, tmp_path: Path) -> None:
    """The report's template and style travel in the wheel."""
    assert _run(installed, tmp_path, "phantom", "--out", "cell.png", "--cell", "blast").returncode == 0
    done = _run(installed, tmp_path, "diagnose", "cell.png", "--report", "report.html", DL4ALL_HOME=str(ROOT))
    assert done.returncode == 0, done.stderr
    assert "<style>" in (tmp_path / "report.html").read_text(encoding="utf-8")
