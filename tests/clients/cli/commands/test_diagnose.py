"""The command line as a person or a script uses it: real files, real processes, and the lines on stdout."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from typer.testing import CliRunner

from clients.cli.main import app, given_path
from clients.cli.report.page import write_report
from services.common.errors import InvalidImageError
from services.common.image_codec import decode_image, phantom_truth
from services.common.phantom import CellKind, PhantomOptions, encode_png, single_cell, smear_field
from tests.paths import ROOT

pytestmark = pytest.mark.processes

DL4ALL = [sys.executable, "-m", "clients.cli.main"]


def run(*arguments, cwd=None, **environment):
    command = [*DL4ALL, *(argument if isinstance(argument, bytes) else str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", cwd=cwd, env={**os.environ, **environment}, timeout=120)


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


@pytest.fixture
def cell() -> bytes:
    return encode_png(single_cell(6, CellKind.MONOCYTE))


@pytest.mark.parametrize("command", ["diagnose", "cells", "focus", "enhance"])
def test_a_folder_without_images_is_an_error(tmp_path, command):
    (tmp_path / "a.webp").write_bytes(b"x")
    result = run(command, tmp_path)
    assert result.returncode == 1
    assert result.stdout == ""
    assert "passed over: 1 .webp" in result.stderr
    assert "There is no image in this folder or below. Files that end in .jpg, " in result.stderr
    assert "there are 1 .webp. (NO_IMAGES)" in result.stderr


def test_an_empty_folder_is_an_error_of_its_own_beside_others_and_in_the_report(tmp_path, cell):
    (tmp_path / "full").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "full" / "a.png").write_bytes(cell)
    result = run("diagnose", tmp_path / "empty", tmp_path / "full", "--json", "--report", tmp_path / "r.html")
    assert result.returncode == 1
    failed, judged = objects(result)
    assert failed["error"]["reason"] == "NO_IMAGES"
    assert judged["diagnosis"]["cells"]
    assert "There is no image in this folder" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_a_folder_is_read_through_links_and_beside_what_a_mac_left(tmp_path, cell):
    (tmp_path / "archive").mkdir()
    (tmp_path / "study").mkdir()
    (tmp_path / "archive" / "a.jfif").write_bytes(cell)
    (tmp_path / "archive" / "._a.jfif").write_bytes(b"\x00\x05\x16\x07")
    (tmp_path / "study" / "patient1").symlink_to(tmp_path / "archive", target_is_directory=True)
    result = run("focus", tmp_path / "study", "--json")
    assert result.returncode == 0, result.stderr
    (scored,) = objects(result)
    assert scored["path"].endswith("study/patient1/a.jfif")
    assert "passed over: 1 hidden file (._*)" in result.stderr


def test_a_name_that_is_no_text_is_shown_and_reported(tmp_path, cell):
    (tmp_path / os.fsdecode(b"Gr\xf6\xdfe.png")).write_bytes(cell)
    report = tmp_path / "r.html"
    result = run("diagnose", tmp_path, "--json", "--report", report)
    assert result.returncode == 0, result.stderr
    (answer,) = objects(result)
    assert Path(answer["path"]).name == "Gr\ufffd\ufffde.png"
    assert "Gr\ufffd\ufffde.png" in report.read_text(encoding="utf-8")
    for command in ("diagnose", "focus", "cells", "enhance"):
        result = run(command, tmp_path / os.fsdecode(b"Gr\xf6\xdfe.png"))
        assert result.returncode == 0, result.stderr
        assert "Gr\ufffd\ufffde.png" in result.stdout + result.stderr


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1"])
def test_json_is_json_in_every_encoding_of_the_output(tmp_path, cell, encoding):
    (tmp_path / "血液 é.png").write_bytes(cell)
    result = run("focus", tmp_path, "--json", PYTHONIOENCODING=encoding)
    assert result.returncode == 0, result.stderr
    (answer,) = objects(result)
    assert Path(answer["path"]).name == "血液 é.png"
    assert run("focus", tmp_path, PYTHONIOENCODING=encoding).returncode == 0


def test_a_name_does_not_steer_the_terminal(tmp_path, cell):
    (tmp_path / "a\x1b[31m\nNO_BLASTS_SEEN b\x9b2J.png").write_bytes(cell)
    (tmp_path / "bad\x1b]0;x\x07\n.png").write_bytes(b"x")
    for arguments in (("diagnose",), ("focus",), ("diagnose", "--json"), ("diagnose", "--report", tmp_path / "none\x1b[2J" / "r.html")):
        result = run(arguments[0], tmp_path, *arguments[1:])
        assert not set("\x1b\x07\x9b") & set(result.stdout + result.stderr)
        assert not any(line.startswith("NO_BLASTS_SEEN") for line in (result.stdout + result.stderr).splitlines())


def test_a_report_is_written_whole_or_not_at_all(tmp_path, cell, monkeypatch):
    old = tmp_path / "r.html"
    old.write_text("old", encoding="utf-8")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        write_report(old, "new")
    assert old.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [old]
    monkeypatch.undo()
    (tmp_path / "link.html").symlink_to("r.html")
    write_report(tmp_path / "link.html", "new \udcf6")
    assert old.read_text(encoding="utf-8") == "new ?"
    assert (tmp_path / "link.html").is_symlink()


@pytest.mark.parametrize(
    "arguments",
    [
        ("diagnose", ""),
        ("diagnose", "a.png", "--report", ""),
        ("diagnose", "a.png", ""),
        ("slide", ""),
        ("enhance", "a.png", "--out", ""),
        ("library", "list", "--store", ""),
        ("release", "verify", "--releases", ""),
        ("data", "pack", "", "--out", "a.pack"),
        ("train", "plain_resnet", "--data", ""),
        ("study", "decision", "--data", ""),
        ("phantom", "--out", ""),
    ],
    ids=" ".join,
)
def test_an_empty_path_is_refused(arguments):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "is empty" in " ".join(result.output.replace("│", " ").split())


def test_every_path_of_the_command_line_is_read_by_one_function():
    for group in (app, *(of.typer_instance for of in app.registered_groups if of.typer_instance is not None)):
        for command in group.registered_commands:
            hints = get_type_hints(command.callback, include_extras=True)
            paths = [hint for hint in hints.values() if "Path" in str(get_args(hint)[:1])]
            assert all(info.parser is given_path for hint in paths for info in hint.__metadata__), command.callback


@pytest.mark.parametrize("address", ["http://localhost:50051", "localhost", "", "localhost:50051/x", "::1:50051", "[::1]"])
def test_an_address_that_is_none_is_told_in_one_line(tmp_path, cell, address):
    (tmp_path / "a.png").write_bytes(cell)
    for arguments in (("diagnose", tmp_path / "a.png"), ("call", "list"), ("release", "list")):
        result = run(*arguments, "--address", address)
        assert result.returncode == 1
        (line,) = result.stderr.splitlines()
        assert "write HOST:PORT, such as localhost:50051" in line or "write localhost:50051" in line or "write [::1]:50051" in line


def test_a_call_of_this_machine_takes_no_proxy_and_another_names_it(tmp_path, cell):
    (tmp_path / "a.png").write_bytes(cell)
    proxy = {"http_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    (here,) = objects(run("focus", tmp_path / "a.png", "--json", "--address", "127.0.0.1:1", **proxy))
    assert "127.0.0.1:1" in here["error"]["message"]
    assert "127.0.0.1:9" not in here["error"]["message"]
    assert "http_proxy" not in here["error"]["message"]
    (there,) = objects(run("focus", tmp_path / "a.png", "--json", "--address", "gateway.invalid:50051", **proxy))
    assert "the proxy that the variable http_proxy names" in there["error"]["message"]
    assert "add it to no_proxy" in run("call", "list", "--address", "gateway.invalid:50051", **proxy).stderr


def test_a_report_never_takes_the_place_of_an_image(tmp_path, cell):
    (tmp_path / "a.png").write_bytes(cell)
    result = run("diagnose", tmp_path, "--report", tmp_path / "a.png")
    assert result.returncode == 2
    assert run("enhance", tmp_path, "--out", tmp_path).returncode == 2
    assert (tmp_path / "a.png").read_bytes() == cell


def test_an_image_that_vanishes_or_is_refused_is_told_in_the_words_of_who_refused_it(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "b.png").write_bytes(b"no image")
    result = run("focus", tmp_path, tmp_path / "gone.png", "--json")
    assert [o["error"]["reason"] for o in objects(result)] == ["IMAGE_EMPTY", "IMAGE_UNKNOWN_FORMAT", "FILE_UNREADABLE"]
    for name, answer in zip(("a.png", "b.png"), objects(result), strict=False):
        with pytest.raises(InvalidImageError) as refused:
            decode_image((tmp_path / name).read_bytes())
        assert answer["error"]["message"] == refused.value.message


@pytest.mark.parametrize("folders", [(), ("releases", "model_repository")], ids=["nothing", "folders of something else"])
def test_where_there_are_no_releases_the_settings_are_named(tmp_path, folders):
    for folder in folders:
        (tmp_path / folder).mkdir()
    packages = f"{ROOT}{os.pathsep}{ROOT / 'clients' / 'python'}"
    for arguments in (("release", "list"), ("serve", "--port", "0")):
        result = run(*arguments, cwd=tmp_path, PYTHONPATH=packages, DL4ALL_HOME="")
        assert result.returncode == 1
        assert "DL4ALL_RELEASES" in result.stderr
        assert "DL4ALL_MODEL_REPOSITORY" in result.stderr
