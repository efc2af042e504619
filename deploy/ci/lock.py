"""Lock what is installed: compile ``requirements/*.txt`` from ``pyproject.toml``, every file with its hashes.

    python -m deploy.ci.lock

Needs uv and a package index. The first line of each file is a digest of what it was compiled from, by which a test tells that it is
stale. Our own two distributions are no lines of them: they are installed afterwards, without an index. ``train`` and ``gpu`` are left
out: their lock would take gigabytes of CUDA.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
LOCKS: Final = {"serving": ("cpu", "tracing", "build"), "dev": ("cpu", "tracing", "build", "dev")}
"""Extras by name of the file."""
OWN: Final = ("dl4all-client", "dl4all-serving")
_OLDEST_PYTHON: Final = "3.11"


def lock_path(name: str) -> Path:
    """The file of a lock."""
    return ROOT / "requirements" / f"{name}.txt"


def declared(name: str) -> list[str]:
    """Requirements that a lock is compiled from, as ``pyproject.toml`` of server and client state them."""
    server, client = _project(ROOT), _project(ROOT / "clients" / "python")
    extras = [requirement for extra in LOCKS[name] for requirement in server["optional-dependencies"][extra]]
    return sorted({*server["dependencies"], *client["dependencies"], *extras})


def stamp(name: str) -> str:
    """First line of a lock: what it was compiled from."""
    return f"# Compiled by `make lock` from what has the SHA-256 {hashlib.sha256(json.dumps(declared(name)).encode()).hexdigest()}"


def compile_lock(name: str) -> None:
    """Compile one lock; pins that still fit are kept.

    Raises:
        subprocess.CalledProcessError: uv cannot resolve it.
    """
    path = lock_path(name)
    command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--universal", "--generate-hashes", "--no-header", "--quiet"]
    command += [f"--python-version={_OLDEST_PYTHON}", "--no-emit-index-url", "--no-annotate", f"--output-file={path.relative_to(ROOT)}"]
    command += [f"--extra={extra}" for extra in LOCKS[name]] + [f"--no-emit-package={own}" for own in OWN]
    subprocess.run(command, cwd=ROOT, check=True)
    path.write_text(f"{stamp(name)}\n{path.read_text(encoding='utf-8')}", encoding="utf-8")


def _project(folder: Path) -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project


if __name__ == "__main__":
    for lock in LOCKS:
        compile_lock(lock)
        sys.stderr.write(f"Locked {lock_path(lock).relative_to(ROOT)}.\n")
