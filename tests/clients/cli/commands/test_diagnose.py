"""The command line as a person or a script uses it: real files, real processes, and the lines on stdout."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from services.common.image_codec import phantom_truth
from services.common.phantom import CellKind, PhantomOptions, encode_png, single_cell, smear_field

pytestmark = pytest.mark.processes

DL4ALL = [sys.executable, "-m", "clients.cli.main"]


def run(*arguments, cwd=None):
    return subprocess.run([*DL4ALL, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, timeout=120)


def objects(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


def true_cells(path: Path) -> Any:
    truth = phantom_truth(path.read_bytes())
    assert truth is not None
    return truth["cells"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    (folder / "field.png").write_bytes(encode_png(smear_field(4, PhantomOptions(width=640, height=480, cells=4))))
    (folder / "cell.png").write_bytes(encode_png(single_cell(6, CellKind.MONOCYTE)))
    (folder / "below").mkdir()
    (folder / "below" / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (folder / "notes.txt").write_text("not an image", encoding="utf-8")
    return folder


def test_help_teaches_every_command():
    text = run("--help").stdout
    for command in ("diagnose", "serve", "slide", "phantom", "focus", "enhance", "cells"):
        assert command in text
        assert run(command, "--help").returncode == 0


def test_diagnose_json_answers_all_images_of_a_folder_and_exits_1_for_the_broken_one(images):
    result = run("diagnose", images, "--json")
    assert result.returncode == 1
    answers = {Path(o["path"]).name: o for o in objects(result)}
    assert set(answers) == {"field.png", "cell.png", "broken.jpg"}
    assert answers["broken.jpg"]["error"]["code"] == "INVALID_ARGUMENT"
    assert answers["broken.jpg"]["error"]["reason"].startswith("IMAGE_")
    diagnosis = answers["field.png"]["diagnosis"]
    assert diagnosis["finding"] in {"BLASTS_SUSPECTED", "INDETERMINATE"}
    assert diagnosis["requires_review"] is True
    assert "PHANTOM" in diagnosis["reasons"]
    assert diagnosis["provenance"]["release"]
    for cell in diagnosis["cells"]:
        assert {"x", "y", "width", "height"} == set(cell["box"])
        assert 0 <= cell["blast_probability"] <= 1
        assert isinstance(cell["suspected"], bool)


def test_kind_cell_gives_one_cell_whatever_the_image(images):
    (answer,) = objects(run("diagnose", images / "field.png", "--kind", "cell", "--json"))
    assert len(answer["diagnosis"]["cells"]) == 1


def test_report_is_written(images, tmp_path):
    report = tmp_path / "report.html"
    result = run("diagnose", images / "cell.png", "--report", report)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    text = report.read_text(encoding="utf-8")
    assert "PHANTOM" in text
    assert "image not held here" in text


def test_a_report_that_cannot_be_written_is_told_before_any_work(images, tmp_path):
    for command in ("diagnose", "slide"):
        result = run(command, images / "cell.png", "--report", tmp_path / "missing" / "report.html", "--json")
        assert result.returncode == 2
        assert result.stdout == ""
        assert "there is no folder" in " ".join(result.stderr.replace("│", " ").split())


def test_a_call_with_a_file_that_is_no_text_is_told(images):
    result = run("call", "DiagnosisService/Diagnose", "--data", f"@{images / 'cell.png'}")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr


def test_unknown_release_is_a_clear_error(images):
    (answer,) = objects(run("diagnose", images / "cell.png", "--release", "nonsense", "--json"))
    assert answer["error"]["reason"] == "RELEASE_UNKNOWN"


def test_server_that_is_not_there(images):
    result = run("diagnose", images / "cell.png", "--address", "127.0.0.1:1", "--json")
    (answer,) = objects(result)
    assert result.returncode == 1
    assert answer["error"]["code"] == "UNAVAILABLE"


def test_cells_form(images):
    (answer,) = objects(run("cells", images / "field.png", "--json"))
    truth = true_cells(images / "field.png")
    assert len(answer["cells"]) == len(truth)
    assert {"box", "confidence"} <= set(answer["cells"][0])


def test_focus_form_and_missing_file(images):
    result = run("focus", images / "cell.png", images / "missing.png", "--json")
    assert result.returncode == 1
    scored, failed = objects(result)
    assert 4 < scored["score"] < 12
    assert failed["error"]["reason"] == "FILE_UNREADABLE"


def test_enhance_form_and_pictures(images, tmp_path):
    result = run("enhance", images / "cell.png", "--json", "--out", tmp_path / "out")
    (answer,) = objects(result)
    assert set(answer) >= {"path", "cell", "focus_before", "focus_after", "unsharp_radius", "accepted", "reasons"}
    (truth,) = true_cells(images / "cell.png")
    assert answer["cell"]["center_x"] == pytest.approx(truth["center_x"], abs=0.1 * truth["radius"])
    assert answer["cell"]["radius"] == pytest.approx(truth["radius"], rel=0.15)
    assert (tmp_path / "out" / "cell.png").stat().st_size > 1000


def test_releases_are_listed():
    (default,) = [s for s in objects(run("release", "list", "--json")) if s["default"]]
    assert default["detects"] in {"lymphoblast", "blast_lineage_unspecified"}
    assert "AUC" in run("release", "list").stdout


def test_phantom_carries_its_truth_and_the_same_seed_draws_the_same(tmp_path):
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    for path in (first, second):
        assert run("phantom", "--out", path, "--seed", 3, "--cells", 2, "--width", 320, "--height", 240).returncode == 0
    assert first.read_bytes() == second.read_bytes()
    assert len(true_cells(first)) == 2


def test_phantom_that_cannot_be_drawn(tmp_path):
    result = run("phantom", "--out", tmp_path / "x.png", "--cells", 200, "--width", 64, "--height", 64)
    assert result.returncode == 1
    assert "cannot draw" in result.stderr
    assert not (tmp_path / "x.png").exists()


def test_serve_answers_the_same_as_in_process_and_ends_on_sigint(images):
    process = subprocess.Popen([*DL4ALL, "serve", "--port", "0"], stderr=subprocess.PIPE, text=True, env={**os.environ})
    try:
        assert process.stderr is not None
        line = next(line for line in process.stderr if '"serving"' in line)
        address = json.loads(line)["address"]
        (served,) = objects(run("diagnose", images / "field.png", "--address", address, "--json"))
        (local,) = objects(run("diagnose", images / "field.png", "--json"))
        for answer in (served, local):
            answer["diagnosis"].pop("timings")
            answer["diagnosis"].pop("request_id")
        assert served == local
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0


def test_ctrl_c_ends_a_long_run_with_130(images, tmp_path):
    for number in range(60):
        (tmp_path / f"{number}.png").write_bytes((images / "field.png").read_bytes())
    process = subprocess.Popen([*DL4ALL, "diagnose", str(tmp_path), "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["diagnosis"]
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130


def test_a_reader_who_goes_away_ends_it_without_a_message():
    with subprocess.Popen([*DL4ALL, "release", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
