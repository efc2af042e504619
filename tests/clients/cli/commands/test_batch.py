"""``dl4all batch``: planning, refusing to mix, status, exit statuses. What it scores is in ``tests/integration/test_batch.py``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from clients.batch.plan import read_plan
from clients.batch.shard_file import write_finished
from clients.batch.store import Store
from clients.cli.commands.batch import _rate_words
from clients.cli.main import app
from tests.clients.batch.making import lines, planned, row


def batch(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["batch", *map(str, arguments)])


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "manifest.csv"
    path.write_text("path,specimen,release\na.png,1,\nb.png,2,dss\nc.png,3,\n")
    return path


def test_a_plan_names_the_releases_of_now(manifest: Path, tmp_path: Path) -> None:
    done = batch("plan", manifest, "--out", tmp_path / "out", "--shard-size", 2)
    assert done.exit_code == 0, done.output
    plan = read_plan(Store(str(tmp_path / "out")))
    assert (plan.images, plan.shards, plan.options.release, plan.releases) == (3, 2, "plain-resnet-1", {"dss": "dss-1"})
    again = batch("plan", manifest, "--out", tmp_path / "out", "--shard-size", 1)
    assert again.exit_code == 0
    assert read_plan(Store(str(tmp_path / "out"))) == plan, "the shards stay as they were"


def test_other_options_are_refused_unless_told(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    batch("plan", manifest, "--out", out)
    refused = batch("plan", manifest, "--out", out, "--release", "histotnet")
    assert refused.exit_code == 1
    assert "release was 'plain-resnet-1' and is 'histotnet-1'" in refused.stderr
    assert "--mix" in refused.stderr
    assert read_plan(Store(str(out))).options.release == "plain-resnet-1"
    assert batch("plan", manifest, "--out", out, "--release", "histotnet", "--mix").exit_code == 0
    assert read_plan(Store(str(out))).options.release == "histotnet-1"


def test_another_manifest_is_refused_unless_the_old_results_are_discarded(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    batch("plan", manifest, "--out", out)
    (out / "results.parquet").write_bytes(b"old")
    manifest.write_text("path\na.png\n")
    for told in ((), ("--mix",)):
        refused = batch("run", manifest, "--out", out, *told)
        assert refused.exit_code == 1
        assert "3 images then, 1 now" in refused.stderr
    assert batch("plan", manifest, "--out", out, "--discard").exit_code == 0
    assert read_plan(Store(str(out))).images == 1
    assert not (out / "results.parquet").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "nothing", "--out", "out"), "is no folder"),
        (("status", "nothing"), "There is no batch"),
        (("resume", "nothing"), "There is no batch"),
        (("merge", "nothing"), "There is no batch"),
        (("work", "nothing"), "There is no batch"),
    ],
)
def test_what_is_not_there_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = batch(*arguments)
    assert done.exit_code == 1
    assert words in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_release_is_refused_before_anything_is_written(manifest: Path, tmp_path: Path) -> None:
    done = batch("plan", manifest, "--out", tmp_path / "out", "--release", "nothing-1")
    assert done.exit_code == 1
    assert "nothing-1" in done.stderr
    assert not (tmp_path / "out").exists()


def test_status_merge_and_report(tmp_path: Path) -> None:
    store, _ = planned(tmp_path / "out", 5, shard_size=3)
    write_finished(store, 0, 1, lines(3), [row(n) for n in range(3)])
    status = json.loads(batch("status", tmp_path / "out", "--json").stdout)
    assert (status["images"], status["done"], status["finished"]) == (5, 3, False)
    assert "waits" in batch("status", tmp_path / "out").stdout
    assert batch("merge", tmp_path / "out").exit_code == 1
    write_finished(store, 1, 1, lines(5)[3:], [row(n) for n in (3, 4)])
    assert batch("report", tmp_path / "out").exit_code == 1, "it is not merged"
    assert batch("merge", tmp_path / "out").exit_code == 0
    assert batch("report", tmp_path / "out").exit_code == 0
    assert "Batch of 5 images" in (tmp_path / "out" / "report.html").read_text()
    assert batch("report", tmp_path / "out", "--out", tmp_path / "page.html").exit_code == 0
    assert (tmp_path / "page.html").is_file()


def test_kubernetes_is_told_how_many_pods_it_needs(manifest: Path, tmp_path: Path) -> None:
    done = batch("run", manifest, "--out", tmp_path / "out", "--shard-size", 1, "--engine", "kubernetes")
    assert done.exit_code == 0
    assert "completions: 3" in done.stderr


def test_the_rate_tells_the_time_that_is_left() -> None:
    from collections import deque

    assert _rate_words(deque([(0.0, 0), (10.0, 100)]), 1100) == "10.0 a second, 0:01:40 left"
    assert _rate_words(deque([(0.0, 5), (10.0, 5)]), 10) == ""
