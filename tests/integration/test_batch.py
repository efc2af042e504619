"""``dl4all batch`` with real services: from a folder, on an S3 store, interrupted and gone on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from moto.server import ThreadedMotoServer

from clients.batch.merging import read_results
from clients.batch.plan import read_plan
from clients.batch.status import StatusReader
from clients.batch.store import Store
from services.common.phantom import CellKind, encode_png, single_cell
from tests.paths import ROOT
from tests.running import eventually

COMMAND = [sys.executable, "-m", "clients.cli.main", "batch"]


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    kinds = list(CellKind)
    return [encode_png(single_cell(seed, kinds[seed % len(kinds)])) for seed in range(8)]


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An S3 server with a bucket; the environment leads to it."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in (("ACCESS_KEY_ID", "test"), ("SECRET_ACCESS_KEY", "test"), ("ENDPOINT_URL", f"http://{host}:{port}")):
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir("archive")
        yield "s3://archive"
    finally:
        server.stop()


def batch(*arguments: object, status: int = 0) -> str:
    done = subprocess.run([*COMMAND, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == status, done.stderr
    return done.stderr


def test_an_object_store_from_images_to_results(s3: str, images: list[bytes], tmp_path: Path) -> None:
    system = fsspec.filesystem("s3", skip_instance_cache=True)
    for number, image in enumerate(images):
        system.pipe_file(f"archive/images/{number}.png", image)
    system.pipe_file("archive/images/broken.png", images[0][:100])
    said = batch("run", f"{s3}/images", "--out", f"{s3}/batch", "--shard-size", 5)
    assert "9 images" in said
    store = Store(f"{s3}/batch")
    results = read_results(store)
    assert results["line"].to_pylist() == list(range(9))
    assert results["uri"].to_pylist()[:2] == ["s3://archive/images/0.png", "s3://archive/images/1.png"]
    assert results["status"].to_pylist() == ["answered"] * 8 + ["refused"]
    assert set(results["release"].to_pylist()[:8]) == {"plain-resnet-1"}
    assert not store.create("shards/000000/lease-000001.json", b""), "the store itself refuses to write over a lease"
    batch("report", f"{s3}/batch", "--out", tmp_path / "page.html")
    assert "Batch of 9 images" in (tmp_path / "page.html").read_text()


def test_ctrl_c_keeps_what_is_finished_and_resume_does_the_rest(images: list[bytes], tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(240):
        (tmp_path / "images" / f"{number:03d}.png").write_bytes(images[number % len(images)])
    out = tmp_path / "out"
    command = [*COMMAND, "run", str(tmp_path / "images"), "--out", str(out)]
    driver = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    store = Store(str(out))

    def done() -> int:
        return StatusReader(store, read_plan(store)).read().done if (out / "plan.json").exists() else 0

    eventually(lambda: done() > 10 or driver.poll() is not None, 120, "some images are done")
    driver.send_signal(signal.SIGINT)
    _, said = driver.communicate(timeout=60)
    assert driver.returncode == 130, said
    assert "resume" in said
    before = done()
    assert 10 < before < 240
    refused = batch("run", tmp_path / "images", "--out", out, "--release", "dss", status=1)
    assert "--mix" in refused
    time.sleep(0.1)
    assert done() == before
    batch("resume", out)
    results = read_results(store)
    assert results["line"].to_pylist() == list(range(240))
    assert set(results["status"].to_pylist()) == {"answered"}
    assert max(results["attempts"].to_pylist()) <= 2
