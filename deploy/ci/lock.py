"""Lock the installed packages: compile ``requirements/*.txt`` from the projects, every file with its hashes.

    python -m deploy.ci.lock

Needs uv and a package index. The first line of each file is a digest of its sources, by which a test finds that it is stale. Our own two
distributions are not in the files: they are installed afterwards, without an index. ``train`` and ``gpu`` are left
out: their lock would take gigabytes of CUDA. The two locks of the client are the ends of its ranges, at which a test calls a server.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
OWN: Final = ("dl4all-client", "dl4all-serving")
_OLDEST_PYTHON: Final = "3.11"


@dataclass(frozen=True)
class Lock:
    """The sources of a lock.

    Attributes:
        projects: folders of the projects whose requirements it pins; the first is compiled, the others are installed by it.
        extras: extras of the first.
        resolution: of uv; ``lowest-direct`` takes the oldest versions that the project allows.
    """

    projects: tuple[str, ...] = (".", "clients/python")
    extras: tuple[str, ...] = ()
    resolution: str = "highest"


LOCKS: Final = {
    "serving": Lock(extras=("batch", "cpu", "tracing", "build")),
    "dev": Lock(extras=("batch", "cpu", "tracing", "build", "dev")),
    "client-oldest": Lock(("clients/python",), resolution="lowest-direct"),
    "client-newest": Lock(("clients/python",)),
}
"""By name of the file."""


def lock_path(name: str) -> Path:
    """The file of a lock."""
    return ROOT / "requirements" / f"{name}.txt"


def declared(name: str) -> list[str]:
    """Requirements that a lock is compiled from, as the ``pyproject.toml`` of its projects state them."""
    lock = LOCKS[name]
    projects = [_project(ROOT / folder) for folder in lock.projects]
    extras = [requirement for extra in lock.extras for requirement in projects[0]["optional-dependencies"][extra]]
    return sorted({*(requirement for project in projects for requirement in project["dependencies"]), *extras})


def stamp(name: str) -> str:
    """First line of a lock: a digest of its sources."""
    return f"# Compiled by `make lock` from what has the SHA-256 {hashlib.sha256(json.dumps(declared(name)).encode()).hexdigest()}"


def compile_lock(name: str) -> None:
    """Compile one lock; pins that still fit are kept.

    Raises:
        subprocess.CalledProcessError: uv cannot resolve it.
    """
    path, lock = lock_path(name), LOCKS[name]
    project = f"{lock.projects[0]}/pyproject.toml"
    command = [sys.executable, "-m", "uv", "pip", "compile", project, "--universal", "--generate-hashes", "--no-header", "--quiet"]
    command += [f"--python-version={_OLDEST_PYTHON}", "--no-emit-index-url", "--no-annotate", f"--output-file={path.relative_to(ROOT)}"]
    command += [f"--extra={extra}" for extra in lock.extras] + [f"--no-emit-package={own}" for own in OWN]
    subprocess.run([*command, f"--resolution={lock.resolution}"], cwd=ROOT, check=True)
    path.write_text(f"{stamp(name)}\n{path.read_text(encoding='utf-8')}", encoding="utf-8")


def _project(folder: Path) -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project


if __name__ == "__main__":
    for lock in LOCKS:
        compile_lock(lock)
        sys.stderr.write(f"Locked {lock_path(lock).relative_to(ROOT)}.\n")
