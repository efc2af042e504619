"""Tests of the training commands as a user types them: real processes, real signals, one clear line for every mistake."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from clients.cli.main import app
from services.common.phantom import CellKind, single_cell
from tests.paths import ROOT
from tests.running import eventually
from tests.training.composed import write_aml_cells
from tests.training.small import SIDE, cell_pack, patch_pack, write_interleaved_recipe, write_packs, write_patch_recipe, write_recipe
from training.crops.packs import read_pack, write_pack
from training.files.array_file import read_arrays

pytestmark = pytest.mark.processes

MISSING = "import sys; sys.modules['torch'] = None; from clients.cli.main import main; main()"


def _command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "clients.cli.main", *map(str, arguments)]


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def _run(*arguments: object) -> Done:
    """The command in this process; tests of processes and signals start one of their own."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Done(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def given(tmp_path: Path) -> list[object]:
    """The arguments of a small training."""
    tissue, cells = write_packs(tmp_path)
    recipe = write_recipe(tmp_path, epochs=2)
    return ["train", recipe, "--data", tissue, "--data", cells, "--runs", tmp_path / "runs", "--cache", tmp_path / "cache", "--device", "cpu"]


def test_train_prints_figures_and_where_the_curves_are(given: list[object], tmp_path: Path) -> None:
    done = _run(*given, "--folds", 2)
    assert done.returncode == 0, done.stderr
    assert "fold-0, validation: AUC" in done.stdout
    assert "pooled, sensitivity at 95 % specificity: " in done.stdout
    assert (tmp_path / "runs" / "small-grouped-cv2-0" / "curves.svg").is_file()
    assert (tmp_path / "runs" / "small-grouped-cv2-0" / "fold-1" / "tensorboard").is_dir()


def test_train_learns_source_and_target_at_once(given: list[object], tmp_path: Path) -> None:
    arguments = ["train", write_interleaved_recipe(tmp_path), *given[2:], "--set", "interleaving.variant=greedy"]
    done = _run(*arguments)
    assert done.returncode == 0, done.stderr
    assert "final, validation: AUC" in done.stdout
    part = tmp_path / "runs" / "small_interleaved-grouped-0-interleaving.variant=greedy" / "final"
    assert "kept" in read_arrays(part / "network.safetensors")[1]["history"][0]
    done = _run(*arguments, "--set", "interleaving.variant=eager")
    assert done.returncode == 1
    assert "interleaving.variant: Input should be 'regular', 'self', 'greedy' or 'greedy_legacy'" in " ".join(done.stderr.split())


def test_control_c_saves_and_the_same_command_goes_on(given: list[object], tmp_path: Path) -> None:
    command = _command(*given, "--set", "pretraining.enabled=false", "--set", "fine_tuning.epochs=400", "--name", "long")
    child: subprocess.Popen[Any] = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    logs = tmp_path / "runs" / "long" / "final" / "tensorboard"
    eventually(lambda: len(list(logs.glob("events*"))) == 1, 120, "the training has begun")
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert "Run the same command again to go on" in " ".join(err.split())
    step = read_arrays(tmp_path / "runs" / "long" / "final" / "checkpoint.safetensors")[1]["step"]
    assert 0 < step < 400 * 9
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    eventually(lambda: len(list(logs.glob("events*"))) == 2, 120, "the training has gone on")
    child.send_signal(signal.SIGTERM)
    assert child.wait(60) in (0, 130)
    assert read_arrays(tmp_path / "runs" / "long" / "final" / "checkpoint.safetensors")[1]["step"] > step


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--set", "fine_tuning.epoch=1"], "fine_tuning.epoch: Extra inputs are not permitted"),
        (["--preset", "grouppd"], "has no preset 'grouppd'; it has grouped, published"),
        (["--data", "nowhere"], "nowhere is not a folder"),
        (["--folds", "1"], "cannot make 1 folds"),
        (["--set", "fine_tuning.batch=900"], "fewer than a batch of 900"),
        (["--device", "tpu"], "A device is auto, cpu or cuda, not 'tpu'"),
        (["--source", "adp"], "The data set adp is not among aml_cells, lc25000_tiles"),
    ],
)
def test_mistakes_are_one_line_and_exit_1(given: list[object], change: list[str], message: str) -> None:
    done = _run(*given, *change)
    assert done.returncode == 1
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_a_damaged_pack_is_told(given: list[object], tmp_path: Path) -> None:
    path = tmp_path / "cells.pack"
    path.write_bytes(path.read_bytes()[:-10])
    done = _run(*given)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "cells.pack" in "".join(done.stderr.split())


def _cells(folder: Path) -> Path:
    (folder / "img").mkdir(parents=True)
    for number in [*range(1, 131, 10), *range(131, 261, 10)]:
        cell = single_cell(number, CellKind.BLAST if number <= 130 else CellKind.LYMPHOCYTE)
        Image.fromarray(cell.image).save(folder / "img" / f"Im{number:03d}_{int(number <= 130)}.tif")
    return folder


def test_pack_writes_one_small_file_that_training_takes(tmp_path: Path) -> None:
    folder, out = _cells(tmp_path / "data"), tmp_path / "cells.pack"
    done = _run("data", "pack", folder, "--out", out, "--side", 48, "--cache", tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    assert "26 crops at 48 px" in " ".join(done.stderr.split())
    pack = read_pack(out)
    assert (pack.header.input, pack.header.jpeg_quality, pack.pixels.shape) == ("registered_sharpened", 92, (26, 48, 48, 3))
    assert pack.header.focus is not None
    assert out.stat().st_size < pack.pixels.nbytes / 2
    small = _run(
        "data", "pack", folder, "--out", tmp_path / "middle.pack", "--center-crop", 256, "--side", 64, "--quality", 0, "--cache", tmp_path / "cache"
    )
    assert small.returncode == 0, small.stderr
    assert read_pack(tmp_path / "middle.pack").header.input == "center_crop"


def test_pack_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    folder = _cells(tmp_path / "data")
    for arguments, message in (
        (["--out", tmp_path / "a.zip"], "ends in .pack"),
        (["--out", tmp_path / "a.pack", "--input", "whole"], "registered_sharpened, registered, legacy_sharpened, center_crop, not 'whole'"),
    ):
        done = _run("data", "pack", folder, *arguments, "--cache", tmp_path / "cache")
        assert done.returncode == 1
        assert message in " ".join(done.stderr.split())
    assert not (tmp_path / "a.pack").exists()
    (folder / "img" / "Im011_1.tif").write_bytes(b"no image")
    done = _run("data", "pack", folder, "--out", tmp_path / "a.pack", "--center-crop", 64, "--cache", tmp_path / "cache")
    assert done.returncode == 1
    assert "1 images cannot be used" in " ".join(done.stderr.split())
    assert "Im011_1.tif" in done.stderr
    assert not (tmp_path / "a.pack").exists()


def test_import_allnet_refuses_what_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"no checkpoint")
    done = _run("release", "import-allnet", tmp_path / "a.pt", tmp_path / "a.onnx")
    assert done.returncode == 1
    assert "is not a state dict" in " ".join(done.stderr.split())
    assert not (tmp_path / "a.onnx").exists()


def test_without_the_extra_the_message_says_how_to_get_it(given: list[object]) -> None:
    done = subprocess.run([sys.executable, "-c", MISSING, *map(str, given)], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "needs the extra `train` of the server's wheel" in " ".join(done.stderr.split())


def test_releases_are_listed_and_verified_without_torch() -> None:
    for verb, word in (("list", "plain-resnet-1"), ("verify", "plain-resnet-1: whole")):
        done = subprocess.run([sys.executable, "-c", MISSING, "release", verb], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        assert word in done.stdout


def test_a_release_that_is_not_whole_is_told(tmp_path: Path) -> None:
    done = _run("release", "verify", "--releases", tmp_path, "--model-repository", tmp_path)
    assert done.returncode == 1
    assert "index.json is missing" in " ".join(done.stderr.split())


def test_a_lossy_pack_cannot_make_a_release_of_a_lossless_training(given: list[object], tmp_path: Path) -> None:
    assert _run(*given, "--name", "run").returncode == 0
    write_pack(cell_pack(side=SIDE), tmp_path / "cells.pack", jpeg_quality=80)
    done = _run("release", "build", tmp_path / "runs" / "run", "--data", tmp_path / "cells.pack", "--id", "x", "--releases", tmp_path / "r")
    assert done.returncode == 1
    assert "not those that the network was trained on" in " ".join(done.stderr.split())
    assert not (tmp_path / "r").exists()


def test_patches_are_counted_and_a_folder_that_is_there_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "all_idb1"
    for folder, content in (("xyc", "30\t40\n"), ("other", "400 30\n")):
        (root / folder).mkdir(parents=True)
        (root / folder / "Im001_1.xyc").write_text(content, encoding="ascii")
    (root / "im").mkdir()
    field = Image.fromarray(single_cell(1, CellKind.BLAST, side=450, cell_radius=60).image)
    field.crop((0, 0, 450, 256)).save(root / "im" / "Im001_1.jpg")
    done = _run("data", "patches", root, tmp_path / "patches")
    assert done.returncode == 0, done.stderr
    assert "2 patches; lymphoblasts in 1, other cells in 1, both in 0, neither in 0" in " ".join((done.stdout + done.stderr).split())
    again = _run("data", "patches", root, tmp_path / "patches")
    assert again.returncode == 1
    assert "already there" in " ".join(again.stderr.split())


def test_fields_are_composed_and_mistakes_are_one_line(tmp_path: Path) -> None:
    cells = write_aml_cells(tmp_path / "aml_cells", cells=4)
    few = ["--fields", 1, "--judged-fields", 1, "--side", 32, "--cache", tmp_path / "cache"]
    done = _run("data", "compose", cells, "--out", tmp_path / "composed.pack", *few)
    assert done.returncode == 0, done.stderr
    assert "36 patches; blast in" in " ".join(done.stderr.split())
    assert read_pack(tmp_path / "composed.pack").header.dataset == "composed_fields"
    refused = _run("data", "compose", cells, "--out", tmp_path / "composed.zip", *few)
    assert refused.returncode == 1
    assert "ends in .pack" in " ".join(refused.stderr.split())


def test_patches_are_cross_validated_on_cells_by_the_same_command(tmp_path: Path) -> None:
    write_pack(patch_pack(), tmp_path / "composed.pack")
    write_pack(cell_pack(input_kind="center_crop", center_crop=256), tmp_path / "cells.pack")
    write_pack(cell_pack(input_kind="registered"), tmp_path / "located.pack")
    packs = [part for name in ("composed", "cells", "located") for part in ("--data", tmp_path / f"{name}.pack")]
    options = ["--runs", tmp_path / "runs", "--cache", tmp_path / "cache", "--device", "cpu"]
    done = _run("train", write_patch_recipe(tmp_path), *packs, *options, "--folds", 2, "--set", "fine_tuning.epochs=1")
    assert done.returncode == 0, done.stderr
    assert "fold-1, validation: AUC" in done.stdout
    assert "pooled, AUC" in done.stdout


def test_patches_are_trained_by_the_same_command(tmp_path: Path) -> None:
    write_pack(patch_pack(), tmp_path / "composed.pack")
    recipe, options = write_patch_recipe(tmp_path), ["--runs", tmp_path / "runs", "--cache", tmp_path / "cache", "--device", "cpu"]
    done = _run("train", recipe, "--data", tmp_path / "composed.pack", *options, "--set", "fine_tuning.epochs=1", "--name", "run")
    assert done.returncode == 0, done.stderr
    assert "final, validation, AUC of blast present: " in done.stdout
    refused = _run("release", "build-patches", tmp_path / "runs" / "run", "--data", tmp_path / "composed.pack", "--id", "Not an id")
    assert refused.returncode == 1
    assert "A release id is made of" in " ".join(refused.stderr.split())
