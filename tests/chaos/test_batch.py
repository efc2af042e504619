"""A batch of 300 images: by Ray in a network of its own, and by local workers while everything is killed once. The rows are the same.

``python -m tests.chaos.batch`` and ``python -m tests.chaos.ray_nodes`` are the long forms.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from clients.batch.merging import read_results
from clients.batch.store import Store
from tests.chaos.batch import Disturbed, command, compare, make_archive
from tests.network import in_own_network
from tests.paths import ROOT
from tests.running import Stack

IMAGES = 300
OF_THE_ENGINE = ("engine",)
"""ONNX Runtime in the workers of Ray, a Triton behind the stack."""


def test_whatever_is_killed_every_line_has_one_row(stack: Stack, tmp_path: Path) -> None:
    make_archive(tmp_path, IMAGES, pool=60)
    quiet, disturbed = tmp_path / "quiet", tmp_path / "disturbed"
    by_ray = command("run", str(tmp_path / "archive"), "--out", str(quiet), "--engine", "ray", "--workers", "2", "--shard-size", "150")
    ray = subprocess.run(in_own_network(by_ray), cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert ray.returncode == 0, ray.stderr
    batch = Disturbed(stack, tmp_path / "archive", disturbed, ("--address", stack["gateway"].address, "--shard-size", "60"))
    try:
        batch.run(seed=3, patience=900.0)
    finally:
        stack.wait_serving()
    assert len(batch.killed) == 5
    tables = [read_results(Store(str(folder))) for folder in (quiet, disturbed)]
    assert [table["line"].to_pylist() for table in tables] == [list(range(IMAGES))] * 2
    assert set(tables[1]["status"].to_pylist()) == {"answered"}
    found = compare(tables[0], tables[1], leave_out=OF_THE_ENGINE)
    assert found.different == {}, f"first lines that differ, by column: {found.different}"
