"""Tests of building, checking and listing releases, from a small run to files that the services load."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from clients.cli.main import app
from services.common.errors import BrokenReleaseError
from services.common.model_repository import CONFIG_FILE, CPU_CONFIG_FILE, read_model_config
from services.common.releases import ReleaseStore, Role
from tests.paths import ROOT
from tests.training.small import cell_pack, write_recipe
from tests.training.small_release import build_options, sources_of
from training.crops.packs import write_pack
from training.crops.sources import Sources
from training.errors import GateError, RecipeError
from training.export.gates import GateReport
from training.files.array_file import read_arrays, write_arrays
from training.learning.devices import Worker
from training.metrics.by_patient import Interval
from training.recipes.config import Gates, load_recipe
from training.releases import build as release_build
from training.releases import calibration
from training.releases import write as release_writing
from training.releases.build import build, gates_for
from training.releases.card import model_card
from training.releases.evidence import detected_by, limits_of, refuse_figures_only
from training.releases.verify import check_releases
from training.runs.folder import TransferOptions, load_trained
from training.runs.transfer import run

pytestmark = pytest.mark.slow

MODELS = ROOT / "model_repository"
CPU = Worker(torch.device("cpu"))


def test_what_is_built_is_what_services_load(built: Path) -> None:
    store = ReleaseStore(built / "releases", built / "model_repository")
    (release,) = store.releases
    assert (release.id, release.system, release.detects.value, release.input.side) == ("small-1", "small", "blast_lineage_unspecified", 32)
    assert store.index.default == "small-1"
    assert next(check_releases(built / "releases", built / "model_repository")).startswith("small-1: whole; small_1 (")
    folder = built / "model_repository" / "small_1"
    assert read_model_config(folder).output_shapes["embedding"] == (8,)
    for config, role in ((CONFIG_FILE, Role.GPU), (CPU_CONFIG_FILE, Role.CPU)):
        text = (folder / config).read_text(encoding="utf-8")
        assert release.network.files[role].sha256 in text
        assert f'default_model_filename: "{release.network.files[role].file}"' in text
    served = {f.file for f in release.network.files.values()}
    assert {p.name for p in (folder / "1").iterdir()} == served


def test_every_figure_of_the_protocol_is_there_with_its_interval(built: Path) -> None:
    (release,) = ReleaseStore(built / "releases", built / "model_repository").releases
    figures = {f.name: f for f in release.figures}
    for name in ("AUC", "balanced accuracy", "sensitivity at 95 % specificity", "expected calibration error", "Brier score"):
        figure = figures[f"{name}, test patients, fused"]
        assert figure.low is not None
        assert figure.high is not None
        assert figure.low <= figure.value <= figure.high
    assert figures["AUC, pooled cross-validation by patient, network"].value >= 0.97
    assert "not suspected, pbc_cells, immature granulocytes" in figures


def test_the_card_is_written_from_the_metadata(built: Path) -> None:
    folder = built / "model_repository" / "small_1"
    card = " ".join((folder / "MODEL_CARD.md").read_text(encoding="utf-8").split())
    metadata = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
    assert metadata["training"]["seed"] == 0
    assert metadata["training"]["network"]["architecture"] == "resnet18"
    assert all(limit in card for limit in metadata["limits"])
    assert all(f"| {figure['name']} |" in card for figure in metadata["figures"])
    assert "must not be called a detector of ALL" in card
    assert "lc25000_tiles" in card


def test_every_scoring_of_the_test_patients_is_noted(trained: Path, built: Path) -> None:
    rows = [json.loads(line) for line in (trained / "runs" / "final" / "test_scores.jsonl").read_text(encoding="utf-8").splitlines()]
    store = ReleaseStore(built / "releases", built / "model_repository")
    assert rows[0]["file"] == store.releases[0].network.files[Role.CPU].sha256
    assert "AUC, test patients, fused" in rows[0]["figures"]


@pytest.mark.parametrize("which", ["model", "library", "config", "cpu config"])
def test_a_tampered_file_is_told(trained: Path, built: Path, tmp_path: Path, which: str) -> None:
    out = tmp_path / "copy"
    shutil.copytree(built, out)
    folder = out / "model_repository" / "small_1"
    path = {
        "model": next((folder / "1").iterdir()),
        "library": out / "releases" / "small-1" / "library.npz",
        "config": folder / CONFIG_FILE,
        "cpu config": folder / CPU_CONFIG_FILE,
    }[which]
    content = path.read_bytes()
    if "config" in which:
        position = content.index(b'"sha256"') + 40
        path.write_bytes(content[:position] + (b"0" if content[position : position + 1] != b"0" else b"1") + content[position + 1 :])
    else:
        path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    with pytest.raises(BrokenReleaseError, match="checksum"):
        list(check_releases(out / "releases", out / "model_repository"))
    result = CliRunner().invoke(app, ["release", "verify", "--releases", str(out / "releases"), "--model-repository", str(out / "model_repository")])
    assert result.exit_code == 1
    assert "checksum" in result.output + (result.stderr if result.stderr_bytes is not None else "")


def test_a_pooled_auc_below_the_gate_writes_nothing(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release_build, "bootstrap_by_patient", lambda *_: Interval(0.5, 0.4, 0.6))
    with pytest.raises(GateError, match=r"is served from 0\.97 on"):
        build(build_options(trained, tmp_path), sources_of(trained))
    assert not list(tmp_path.iterdir())


def test_a_release_without_cross_validation_says_so(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release_build, "_gate", lambda name, *_, wanted: GateReport(name, 0.0, 0.0, wanted=wanted))
    for_int8 = replace(build_options(trained, tmp_path, cv=False), gates=gates_for(trained / "runs" / "final", cpu_file="int8"))
    build(for_int8, sources_of(trained))
    (release,) = ReleaseStore(tmp_path / "releases", tmp_path / "model_repository").releases
    assert any(limit.startswith("Not cross-validated") for limit in release.limits)
    assert {e: f.file for e, f in release.network.files.items()} == {
        Role.CPU: "model_int8.onnx",
        Role.GPU: "model_fp16.onnx",
    }
    assert list(check_releases(tmp_path / "releases", tmp_path / "model_repository"))
    monkeypatch.setattr(release_build, "_gate", lambda name, *_, wanted: GateReport(name, 1.0, 0.0))
    with pytest.raises(RecipeError, match="is there already; give another --id, or --replace it"):
        build(build_options(trained, tmp_path, cv=False), sources_of(trained))
    build(replace(build_options(trained, tmp_path, cv=False), replace=True), sources_of(trained))
    assert [p.name for p in (tmp_path / "model_repository" / "small_1" / "1").iterdir()] == ["model.onnx"]


def test_other_data_than_those_of_the_training_are_refused(trained: Path, tmp_path: Path) -> None:
    write_pack(cell_pack(patients=24, seed=7), tmp_path / "cells.pack")
    with pytest.raises(RecipeError, match="not those that the network was trained on"):
        build(build_options(trained, tmp_path / "out"), Sources.find([tmp_path / "cells.pack"], tmp_path))
    assert not (tmp_path / "out").exists()


def test_a_cross_validation_of_another_recipe_is_refused(trained: Path, tmp_path: Path) -> None:
    recipe = load_recipe(str(write_recipe(tmp_path, system="other", epochs=1)), changes=["pretraining.enabled=false"])
    other = run(TransferOptions(recipe, "", "", 0, 2, tmp_path / "runs", "cv"), sources_of(trained), CPU)
    with pytest.raises(RecipeError, match="was trained with another recipe"):
        build(replace(build_options(trained, tmp_path), cross_validation=other), sources_of(trained))
    everyone = tmp_path / "everyone"
    shutil.copytree(trained / "runs" / "cv", everyone)
    about = json.loads((everyone / "run.json").read_text(encoding="utf-8"))
    (everyone / "run.json").write_text(json.dumps({**about, "patients": "all"}), encoding="utf-8")
    with pytest.raises(RecipeError, match="on the test patients as well"):
        build(replace(build_options(trained, tmp_path), cross_validation=everyone), sources_of(trained))
    with pytest.raises(RecipeError, match="not a finished cross-validation"):
        build(replace(build_options(trained, tmp_path), cross_validation=trained / "runs" / "final"), sources_of(trained))


def test_list_shows_every_release(built: Path) -> None:
    result = CliRunner().invoke(
        app, ["release", "list", "--releases", str(built / "releases"), "--model-repository", str(built / "model_repository")]
    )
    assert result.exit_code == 0
    assert "small-1" in result.stdout
    assert "default, current" in result.stdout


def test_a_limit_that_is_found_later_is_stated_everywhere(built: Path, tmp_path: Path) -> None:
    for part in ("releases", "model_repository"):
        shutil.copytree(built / part, tmp_path / part)
    folders = ["--releases", str(tmp_path / "releases"), "--model-repository", str(tmp_path / "model_repository")]
    limit = "Takes monocytes for blasts: 3 of 10."
    assert CliRunner().invoke(app, ["release", "add-limit", "small-1", limit, *folders]).exit_code == 0
    (release,) = ReleaseStore(tmp_path / "releases", tmp_path / "model_repository").releases
    assert release.limits[-1] == limit
    model = tmp_path / "model_repository" / release.network.model
    assert json.loads((model / "metadata.json").read_text(encoding="utf-8"))["limits"] == list(release.limits)
    assert (model / "MODEL_CARD.md").read_text(encoding="utf-8").endswith(f"\n- {limit}\n")
    assert list(check_releases(tmp_path / "releases", tmp_path / "model_repository"))
    (model / "metadata.json").write_text("[", encoding="utf-8")
    broken = CliRunner().invoke(app, ["release", "add-limit", "small-1", "Another.", *folders])
    assert broken.exit_code == 1
    assert "does not describe a model" in broken.output
    assert ReleaseStore(tmp_path / "releases", tmp_path / "model_repository").releases[0].limits[-1] == limit
    again = CliRunner().invoke(app, ["release", "add-limit", "small-1", limit, *folders])
    assert again.exit_code == 1
    assert "not stated yet" in again.output


def test_building_twice_gives_the_same_files(trained: Path, built: Path, tmp_path: Path) -> None:
    build(build_options(trained, tmp_path), sources_of(trained))
    again, before = _content(tmp_path), _content(built)
    assert len(before) > 6
    assert {name: sha256(content).hexdigest() for name, content in again.items()} == {n: sha256(c).hexdigest() for n, c in before.items()}


def _content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, without the day on which it was made."""
    found = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    return {name: re.sub(rb'"created": "[0-9-]+"', b"", content) if name.endswith(".json") else content for name, content in found.items()}


@pytest.mark.parametrize(
    ("recipe", "gates"), [("allnet", Gates(min_pooled_auc=0.95, cpu_file="int8")), ("dss", Gates(cpu_file="int8")), ("histotnet", Gates())]
)
def test_the_gates_of_a_recipe_stand_in_its_file(recipe: str, gates: Gates) -> None:
    assert load_recipe(recipe).gates == gates


def test_a_run_is_judged_by_the_gates_that_it_was_made_with_unless_others_are_given(trained: Path, tmp_path: Path) -> None:
    run_folder = trained / "runs" / "final"
    assert gates_for(run_folder) == Gates()
    assert gates_for(run_folder, "allnet") == load_recipe("allnet").gates
    assert gates_for(run_folder, cpu_file="int8") == Gates(cpu_file="int8")
    own = tmp_path / "run"
    own.mkdir()
    about = json.loads((run_folder / "run.json").read_text(encoding="utf-8"))
    (own / "run.json").write_text(json.dumps({**about, "gates": {"min_pooled_auc": 0.9}}), encoding="utf-8")
    assert gates_for(own) == Gates(min_pooled_auc=0.9)
    old = {name: value for name, value in about.items() if name != "gates"}
    (own / "run.json").write_text(json.dumps({**old, "recipe": {**old["recipe"], "system": "allnet"}}), encoding="utf-8")
    assert gates_for(own) == load_recipe("allnet").gates, "a run of before gates were noted"
    with pytest.raises(RecipeError, match="no recipe 'allnt'"):
        gates_for(run_folder, "allnt")
    with pytest.raises(RecipeError, match="float32, int8"):
        gates_for(run_folder, cpu_file="int4")


def test_what_is_kept_as_figures_becomes_no_release() -> None:
    refuse_figures_only(load_recipe("allnet"))
    light = ["network.architecture=resnet18_lbp", "start=allnet", "network.lbp_relu=false", "network.kernel=gaussian"]
    with pytest.raises(RecipeError, match=r"GPL-3\.0"):
        refuse_figures_only(load_recipe("allnet", changes=light))
    with pytest.raises(RecipeError, match="one by one"):
        refuse_figures_only(load_recipe("dss", "published"))


def test_a_run_that_split_by_image_becomes_no_release(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "runs" / "final", tmp_path / "final")
    network = tmp_path / "final" / "final" / "network.safetensors"
    arrays, about = read_arrays(network)
    about["recipe"]["division"]["by"] = "image"
    write_arrays(network, arrays, about)
    with pytest.raises(RecipeError, match="one by one"):
        build(replace(build_options(trained, tmp_path), run=tmp_path / "final"), sources_of(trained))


def test_a_run_goes_on_with_other_gates(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "runs" / "final", tmp_path / "final")
    recipe = load_recipe(str(trained / "small.toml"), changes=["gates.min_pooled_auc=0.5"])
    assert run(TransferOptions(recipe, "", "", 0, 0, tmp_path, "final"), sources_of(trained), CPU) == tmp_path / "final"


def test_a_second_release_of_a_system_leaves_the_first_whole(trained: Path, built: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    shutil.copytree(built, out)
    before = _content(out / "releases" / "small-1") | _content(out / "model_repository" / "small_1")
    build(replace(build_options(trained, out), release="small-2"), sources_of(trained))
    assert _content(out / "releases" / "small-1") | _content(out / "model_repository" / "small_1") == before
    index = ReleaseStore(out / "releases", out / "model_repository").index
    assert (index.default, index.current) == ("small-1", {"small": "small-1"})
    assert sorted(p.name for p in out.iterdir()) == ["model_repository", "releases"]


@pytest.mark.parametrize("where", ["write_model_configs", "write_release", "index"])
def test_a_failure_at_any_step_leaves_everything_as_it_was(
    trained: Path, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    out = tmp_path / "copy"
    shutil.copytree(built, out)
    before = _content(out)

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    if where == "index":
        monkeypatch.setattr(release_writing, "_updated_index", _fail_at_the_second_call(release_writing._updated_index))
    else:
        monkeypatch.setattr(release_build, where, fail)
    with pytest.raises(OSError, match="disk full"):
        build(replace(build_options(trained, out), replace=True), sources_of(trained))
    assert _content(out) == before


def _fail_at_the_second_call(function: Callable[..., Any]) -> Callable[..., Any]:
    calls: list[object] = []

    def wrapped(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError("disk full")
        return function(*arguments)

    return wrapped


@pytest.mark.parametrize("name", ["Small-1", "../x", "a b", ""])
def test_ids_that_make_no_sense_are_refused_before_anything_is_scored(trained: Path, tmp_path: Path, name: str) -> None:
    scores = trained / "runs" / "final" / "test_scores.jsonl"
    before = scores.read_bytes() if scores.exists() else None
    with pytest.raises(RecipeError, match="A release id is made of"):
        build(replace(build_options(trained, tmp_path), release=name), sources_of(trained))
    assert (scores.read_bytes() if scores.exists() else None) == before
    assert not list(tmp_path.iterdir())


def test_too_few_calibration_patients_are_told_before_anything_is_scored(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "MIN_PATIENTS", 5)
    monkeypatch.setattr(release_build, "judge", _never)
    with pytest.raises(GateError, match="Only 4 calibration patients have blasts"):
        build(build_options(trained, tmp_path), sources_of(trained))
    assert not list(tmp_path.iterdir())


def test_a_run_whose_epoch_the_calibration_patients_chose_is_refused(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = load_trained(trained / "runs" / "final" / "final")
    recipe = {**found.about["recipe"], "fine_tuning": {**found.about["recipe"]["fine_tuning"], "selection": "best", "average_decay": 0.0}}
    monkeypatch.setattr(release_build, "load_trained", lambda _: replace(found, about={**found.about, "recipe": recipe}))
    with pytest.raises(RecipeError, match=r"fine_tuning\.selection=last"):
        build(build_options(trained, tmp_path), sources_of(trained))


def _never(*_: object) -> object:
    raise AssertionError("nothing may be judged")


@pytest.mark.parametrize(
    ("target", "wanted", "found"),
    [
        ("aml_cells", "", "blast_lineage_unspecified"),
        ("cnmc", "", "lymphoblast"),
        ("own_cells", "lymphoblast", "lymphoblast"),
        ("own_cells", "", "say --detects"),
        ("aml_cells", "lymphoblast", "must not be called lymphoblast"),
        ("composed_fields", "", "judges no single cells; build its release"),
        ("cnmc", "everything", "not 'everything'"),
    ],
)
def test_the_data_say_what_is_detected(target: str, wanted: str, found: str) -> None:
    if " " in found:
        with pytest.raises(RecipeError, match=found):
            detected_by(target, wanted)
    else:
        assert detected_by(target, wanted).value == found


def test_the_card_of_other_data_says_nothing_of_myeloid_blasts_or_of_the_tissue() -> None:
    limits = " ".join(limits_of("cnmc", "adp", cross_validated=True, jpeg_quality=92, coverage=0.9))
    assert "myeloid" not in limits
    assert "not on the Atlas" not in limits
    assert "JPEG of quality 92" in limits
    assert "Not cross-validated" not in limits
    assert "lc25000_tiles (LC25000" in " ".join(limits_of("aml_cells", "lc25000_tiles", cross_validated=False, jpeg_quality=0, coverage=0.8))
    assert "Calibrated on few patients" not in limits
    assert "hold the true class of 80% of cells, not of 90%" in " ".join(
        limits_of("own_cells", None, cross_validated=True, jpeg_quality=0, coverage=0.8)
    )


@pytest.mark.parametrize("model", sorted(p.name for p in MODELS.iterdir() if not p.name.startswith("locator")))
def test_every_card_of_the_project_is_what_its_metadata_say(model: str) -> None:
    metadata = json.loads((MODELS / model / "metadata.json").read_text(encoding="utf-8"))
    assert (MODELS / model / "MODEL_CARD.md").read_text(encoding="utf-8") == model_card(metadata)
    release = json.loads((MODELS.parent / "releases" / metadata["id"] / "release.json").read_text(encoding="utf-8"))
    assert [f["name"] for f in metadata["figures"]] == [f["name"] for f in release["figures"]]
    assert metadata["network"] == release["network"]


def test_the_releases_of_the_project_are_whole() -> None:
    root = ROOT
    assert len(list(check_releases(root / "releases", root / "model_repository"))) >= 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"classes": ["normal", "blast", "nothing"]}, "gives 2 logits, the release names 3 classes"), ({"class_activations": True}, "does not run")],
)
def test_a_release_that_says_more_than_its_network_is_told(built: Path, tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    """The network of the baseline of this project gives no class activations; the small one tells no class nothing."""
    out = tmp_path / "copy"
    if "classes" in changed:
        shutil.copytree(built, out)
        release = out / "releases" / "small-1" / "release.json"
    else:
        for folder, name in (("releases", "histotnet-1"), ("model_repository", "histotnet_1")):
            shutil.copytree(MODELS.parent / folder / name, out / folder / name)
        (out / "releases" / "index.json").write_text('{"default": "histotnet-1", "current": {"histotnet": "histotnet-1"}}', encoding="utf-8")
        release = out / "releases" / "histotnet-1" / "release.json"
    release.write_text(json.dumps({**json.loads(release.read_text(encoding="utf-8")), **changed}), encoding="utf-8")
    with pytest.raises(BrokenReleaseError, match=message):
        list(check_releases(out / "releases", out / "model_repository"))
