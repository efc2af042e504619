"""Serving needs no training."""

from __future__ import annotations

import subprocess
import sys

from tests.paths import ROOT

SCRIPT = """
import sys
import services.embedded
roots = {name.partition(".")[0] for name in sys.modules}
print(",".join(sorted(roots & {"torch", "training", "onnx", "scipy", "clients", "dl4all_client", "mpmath"})))
print("grpc" in roots)
"""


def test_serving_imports_neither_torch_nor_training() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["", "True"]
