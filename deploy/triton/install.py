"""Install a real Triton Inference Server into a folder of its own, without GPU, container or root.

    python deploy/triton/install.py [--into .triton]

The server comes from the wheel ``nvidia-pytriton``, which carries it; nothing of that package's Python API is used. The
wheel lacks the native backend ``onnxruntime``; ``backends/onnxruntime/model.py`` beside this file stands in for it.
Needs Python 3.8 to 3.13 on x86-64 Linux with glibc 2.35 or newer.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]


def install(into: Path) -> None:
    """Make the environment, then the backend directory; an interrupted installation is made again."""
    if sys.platform != "linux":
        raise SystemExit("This Triton runs on Linux only; elsewhere use NVIDIA's container image (deploy/triton/README.md).")
    environment = into / "venv"
    venv.EnvBuilder(with_pip=True, clear=True).create(environment)
    python = environment / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--requirement", HERE / "requirements.txt"], check=True)
    lay_out_backends(into, site_packages(environment))


def site_packages(environment: Path) -> Path:
    """Where the packages of an environment are."""
    return environment / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


def lay_out_backends(into: Path, packages: Path) -> None:
    """Put Triton's Python backend, its stub for this Python, and ours side by side, as Triton expects them."""
    server = packages / "pytriton" / "tritonserver"
    stub = server / "python_backend_stubs" / f"{sys.version_info.major}.{sys.version_info.minor}" / "triton_python_backend_stub"
    if not stub.is_file():
        raise SystemExit(f"nvidia-pytriton has no stub for Python {sys.version_info.major}.{sys.version_info.minor}; install with Python 3.11.")
    backends = into / "backends"
    shutil.rmtree(backends, ignore_errors=True)
    shutil.copytree(server / "backends" / "python", backends / "python")
    shutil.copy2(stub, backends / "python")
    shutil.copytree(HERE / "backends", backends, dirs_exist_ok=True)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, default=PROJECT / ".triton", help="folder to install into (default: %(default)s)")
    given = parser.parse_args()
    install(given.into.resolve())
    sys.stderr.write(f"Triton is installed in {given.into}.\n")


if __name__ == "__main__":
    main()
