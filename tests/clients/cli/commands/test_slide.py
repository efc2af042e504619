"""``dl4all slide`` as a person or a script uses it."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

DL4ALL = [sys.executable, "-m", "clients.cli.main"]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*DL4ALL, *map(str, arguments)], capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict]]:
    path = tmp_path_factory.mktemp("slide") / "slide.tif"
    drawn = run("phantom", "--slide", 2048, "--out", path, "--json")
    assert drawn.returncode == 0
    return path, json.loads(drawn.stdout)["cells"]


def test_a_slide_gives_a_finding_a_table_and_a_report(slide: tuple[Path, list[dict]], tmp_path: Path) -> None:
    path, truth = slide
    result = run("slide", path, "--json", "--cells", tmp_path / "cells.csv", "--report", tmp_path / "slide.html")
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)["slide"]
    assert (answer["facts"]["width"], answer["facts"]["height"]) == (2048, 2048)
    assert answer["counts"]["total"] == pytest.approx(len(truth), abs=1)
    assert "PHANTOM" in answer["reasons"]
    probabilities = [c["blast_probability"] for c in answer["explained"]]
    assert probabilities == sorted(probabilities, reverse=True)
    with (tmp_path / "cells.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == answer["counts"]["total"]
    assert sum(int(row["suspected"]) for row in rows) == answer["counts"]["suspected"]
    page = (tmp_path / "slide.html").read_text(encoding="utf-8")
    assert "A whole slide is not shown" in page
    assert "This is a drawing with no patient behind it." in page


def test_what_is_no_slide_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "x.tif").write_bytes(b"nothing")
    result = run("slide", tmp_path / "x.tif")
    assert result.returncode == 1
    assert "SLIDE_UNKNOWN_FORMAT" in result.stderr
    assert "Traceback" not in result.stderr
    missing = run("slide", tmp_path / "none.tif")
    assert missing.returncode == 1
    assert "Traceback" not in missing.stderr


def test_what_cannot_be_uploaded_is_told_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "empty.tif").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for given, words in (
        ("empty.tif", "is empty: it has 0 bytes"),
        ("folder", "--on-server"),
        ("pipe", "must be a file or a folder on disk"),
        ("/dev/null", "must be a file or a folder on disk"),
    ):
        result = run("slide", tmp_path / given)
        assert result.returncode == 1
        assert words in result.stderr
        assert "Traceback" not in result.stderr


def test_a_slide_out_of_a_pipe_is_refused_in_words() -> None:
    result = subprocess.run([*DL4ALL, "slide", "/dev/stdin"], input="not on disk", capture_output=True, text=True, timeout=300)
    assert result.returncode == 1
    assert "must be a file or a folder on disk" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_slide_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "slide.tif").write_bytes(b"slide")
    result = run("slide", tmp_path / "slide.tif", "--cells", tmp_path / "slide.tif")
    assert result.returncode == 2
    assert (tmp_path / "slide.tif").read_bytes() == b"slide"


def test_a_folder_of_uploads_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "slide.tif").write_bytes(b"nothing")
    environment = {**os.environ, "DL4ALL_PATCHING_SLIDE_UPLOADS": str(tmp_path / "slide.tif")}
    result = subprocess.run([*DL4ALL, "slide", str(tmp_path / "slide.tif")], env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 1
    assert "DL4ALL_PATCHING_SLIDE_UPLOADS" in result.stderr
    assert "Traceback" not in result.stderr


def test_ctrl_c_leaves_nothing_behind(slide: tuple[Path, list[dict]], tmp_path: Path) -> None:
    environment = {**os.environ, "DL4ALL_PATCHING_SLIDE_UPLOADS": str(tmp_path / "uploads")}
    process = subprocess.Popen([*DL4ALL, "slide", str(slide[0])], env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "uploads").glob("*")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert list((tmp_path / "uploads").glob("*")) == []


def test_help_teaches() -> None:
    assert "never held in memory" in " ".join(run("slide", "--help").stdout.split())
