"""Tests of releases: files that do not belong together are refused by name."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from services.common.errors import BrokenReleaseError, FailedPreconditionError, NotFoundError
from services.common.releases import INDEX_FILE, RELEASE_FILE, ReleaseStore, Role, sha256_of


def _open(copy: Any) -> ReleaseStore:
    return ReleaseStore(copy.releases, copy.model_repository)


def _default(copy: Any) -> str:
    return str(json.loads((copy.releases / INDEX_FILE).read_text())["default"])


def _name(release: dict[str, Any], name: str) -> None:
    release.update(id=name)


def _edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def _with_patches(copy: Any, **changes: object) -> Path:
    """Give the default release a section on patches, whose network is another release's; returns the network's file."""
    path = copy.releases / _default(copy) / RELEASE_FILE
    other = next(r for r in _open(copy).releases if r.network.model != json.loads(path.read_text())["network"]["model"])
    section = {
        "network": other.network.model_dump(mode="json"),
        "side": 128,
        "patch_side": 256,
        "overlap": 0.25,
        "nominal_red_cell_radius": 34.5,
        "min_probability": {"blast": 0.5, "other": 0.4},
        "min_activation": 1.5,
        "suppression_radius": 0.3,
        **changes,
    }
    _edit(path, lambda r: r.update(patches=section))
    network = other.network
    return Path(copy.model_repository / network.model / str(network.version) / network.files[Role.CPU].file)


def _refusal(copy: Any) -> str:
    with pytest.raises(BrokenReleaseError) as caught:
        _open(copy)
    assert caught.value.reason == "RELEASE_BROKEN"
    assert caught.value.code == "FAILED_PRECONDITION"
    return caught.value.message


def test_releases_are_found_by_id_by_system_and_by_default(release_copy: Any) -> None:
    store = _open(release_copy)
    release = store.resolve("")
    assert release.id == _default(release_copy)
    assert store.resolve(release.id) is release
    assert store.held(release.id) is release
    assert release in store.releases
    for system, current in store.index.current.items():
        assert store.resolve(system).id == current


def test_an_unknown_release_is_not_found(release_copy: Any) -> None:
    store = _open(release_copy)
    with pytest.raises(NotFoundError) as unknown:
        store.resolve("no-such-release")
    assert unknown.value.reason == "RELEASE_UNKNOWN"
    assert _default(release_copy) in unknown.value.message
    for name in ("no-such-release", "", next(iter(store.index.current))):
        with pytest.raises(FailedPreconditionError) as absent:
            store.held(name)
        assert absent.value.reason == "RELEASE_NOT_HELD"


def test_a_release_may_judge_patches_with_a_network_of_its_own(release_copy: Any) -> None:
    assert _open(release_copy).resolve("").patches is None
    file = _with_patches(release_copy)
    store = _open(release_copy)
    release = store.resolve("")
    assert release.patches is not None
    assert release.patches.min_probability == {"blast": 0.5, "other": 0.4}
    assert release.models == (release.network, release.embedder, release.patches.network)
    assert store.model_path(release.patches.network) == file


@pytest.mark.parametrize(
    "changes",
    [
        {"side": 16},
        {"overlap": 1.0},
        {"nominal_red_cell_radius": 0.0},
        {"min_probability": {"blast": 0.5}},
        {"min_probability": {"blast": 0.5, "other": 0.5, "normal": 0.5}},
        {"min_probability": {"blast": 1.5, "other": 0.5}},
        {"suppression_radius": 0.0},
        {"min_activation": None},
        {"unknown": 1},
    ],
)
def test_a_malformed_section_on_patches(release_copy: Any, changes: dict[str, object]) -> None:
    _with_patches(release_copy, **changes)
    assert _default(release_copy) in _refusal(release_copy)


def test_the_files_of_the_network_of_patches_are_checked(release_copy: Any) -> None:
    _flip(_with_patches(release_copy))
    path = release_copy.releases / _default(release_copy) / RELEASE_FILE
    network = json.loads(path.read_text())["patches"]["network"]["model"]
    for folder in release_copy.releases.iterdir():
        if folder.is_dir() and folder != path.parent and json.loads((folder / RELEASE_FILE).read_text())["network"]["model"] == network:
            for file in folder.iterdir():
                file.unlink()
    assert network in _refusal(release_copy)


def test_paths_lead_to_the_checked_files(release_copy: Any) -> None:
    store = _open(release_copy)
    for release in store.releases:
        assert sha256_of(store.library_path(release)) == release.library.sha256
        for model in release.models:
            for role, file in model.files.items():
                assert sha256_of(store.model_path(model, role)) == file.sha256


def test_releases_name_everything_that_decides(release_copy: Any) -> None:
    for release in _open(release_copy).releases:
        knots = release.preprocessing.upscale_factors
        assert list(knots) == sorted(set(knots))
        assert len(knots) == len(release.preprocessing.thresholds) == len(release.preprocessing.limits)
        assert set(release.calibration.min_probability) == {"normal", "blast"}
        assert list(release.calibration.nearest_distances) == sorted(release.calibration.nearest_distances)
        counts = [count for count, _ in release.decision.false_blasts]
        assert counts == sorted(set(counts))


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "harm",
    [_flip, Path.unlink, lambda p: p.write_bytes(b""), lambda p: p.write_bytes(p.read_bytes() + b"\0")],
    ids=["bit", "missing", "empty", "longer"],
)
@pytest.mark.parametrize("which", ["library", "model"])
def test_a_file_that_is_not_the_one_that_was_released(release_copy: Any, which: str, harm: Callable[[Path], object]) -> None:
    store = _open(release_copy)
    release = store.resolve("")
    role = next(iter(release.network.files))
    path = store.library_path(release) if which == "library" else store.model_path(release.network, role)
    harm(path)
    assert str(path) in _refusal(release_copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.pop("calibration"),
        lambda r: r.update(unknown_field=1),
        lambda r: r["library"].update(sha256="abc"),
        lambda r: r["input"].update(side=16),
        lambda r: r["input"].update(kind="something"),
        lambda r: r.update(detects="everything"),
        lambda r: r["calibration"].update(temperature=0.0),
        lambda r: r["calibration"].update(network_weight=1.5),
        lambda r: r["decision"].update(false_blasts=[]),
        lambda r: r["decision"].update(min_cells_for_negative=0),
        lambda r: r["preprocessing"].update(thresholds=[]),
        lambda r: r["preprocessing"].update(thresholds=r["preprocessing"]["thresholds"][:-1]),
        lambda r: r["preprocessing"].update(upscale_factors=r["preprocessing"]["upscale_factors"][::-1]),
        lambda r: r["calibration"]["min_probability"].pop("blast"),
        lambda r: r["calibration"]["min_probability"].update(other=0.5),
        lambda r: r["calibration"].update(nearest_distances=r["calibration"]["nearest_distances"][::-1]),
        lambda r: r["decision"].update(false_blasts=[[10, 1], [5, 1]]),
        lambda r: r["decision"].update(false_blasts=[[0, 1]]),
    ],
    ids=[
        *("missing part", "unknown field", "checksum", "side", "kind", "detects", "temperature", "weight", "no table", "no cells"),
        *("no thresholds", "knots short", "knots descending", "class missing", "class unknown", "quantiles descending", "table descending", "table at zero"),
    ],
)  # fmt: skip
def test_malformed_releases(release_copy: Any, change: Callable[[dict[str, Any]], object]) -> None:
    path = release_copy.releases / _default(release_copy) / RELEASE_FILE
    _edit(path, change)
    assert str(path) in _refusal(release_copy)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00"])
@pytest.mark.parametrize("file", [RELEASE_FILE, INDEX_FILE])
def test_files_that_are_no_json_objects(release_copy: Any, file: str, text: str) -> None:
    path = release_copy.releases / (file if file == INDEX_FILE else f"{_default(release_copy)}/{file}")
    path.write_text(text)
    assert str(path) in _refusal(release_copy)


def test_a_release_in_the_wrong_folder(release_copy: Any) -> None:
    folder = release_copy.releases / _default(release_copy)
    folder.rename(release_copy.releases / "renamed-1")
    message = _refusal(release_copy)
    assert str(release_copy.releases / "renamed-1" / RELEASE_FILE) in message
    assert folder.name in message


@pytest.mark.parametrize(
    "change", [lambda i: i.update(default="gone-1"), lambda i: i["current"].update(some_system="gone-1")], ids=["default", "system"]
)
def test_an_index_that_names_what_is_not_there(release_copy: Any, change: Callable[[dict[str, Any]], object]) -> None:
    _edit(release_copy.releases / INDEX_FILE, change)
    message = _refusal(release_copy)
    assert INDEX_FILE in message
    assert "gone-1" in message


def test_a_missing_index(release_copy: Any) -> None:
    (release_copy.releases / INDEX_FILE).unlink()
    assert INDEX_FILE in _refusal(release_copy)


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256_of(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_release_that_is_added_later_is_taken_in_at_the_first_request(release_copy: Any) -> None:
    store = _open(release_copy)
    default = _default(release_copy)
    folder = release_copy.releases / "later-1"
    shutil.copytree(release_copy.releases / default, folder)
    _edit(folder / RELEASE_FILE, lambda r: r.update(id="later-1"))
    assert store.held("later-1").id == "later-1"
    assert store.resolve("").id == default
    _edit(release_copy.releases / INDEX_FILE, lambda i: i.update(default="later-1"))
    assert store.resolve("").id == "later-1"


def test_all_that_was_put_there_is_taken_in_and_a_broken_one_is_told_once_and_mended(release_copy: Any) -> None:
    store = _open(release_copy)
    known = {r.id for r in store.releases}
    for name in ("later-1", "later-2"):
        shutil.copytree(release_copy.releases / _default(release_copy), release_copy.releases / name)
        _edit(release_copy.releases / name / RELEASE_FILE, partial(_name, name=name))
    library = release_copy.releases / "later-2" / "library.npz"
    whole = library.read_bytes()
    library.write_bytes(b"half")
    _edit(release_copy.releases / INDEX_FILE, lambda i: i.update(default="later-1"))
    with capture_logs() as logs:
        for _ in range(3):
            store.take_in()
    assert {r.id for r in store.releases} == known | {"later-1"}
    assert store.index.default == "later-1"
    assert [line["release"] for line in logs if line["event"] == "release refused"] == ["later-2"]
    library.write_bytes(whole)
    store.take_in()
    assert {r.id for r in store.releases} == known | {"later-1", "later-2"}


def test_what_is_broken_is_left_out_and_changes_nothing(release_copy: Any) -> None:
    store = _open(release_copy)
    default = _default(release_copy)
    folder = release_copy.releases / "later-1"
    shutil.copytree(release_copy.releases / default, folder)
    _edit(folder / RELEASE_FILE, lambda r: r.update(id="later-1"))
    (folder / "library.npz").write_bytes(b"half")
    with pytest.raises(FailedPreconditionError):
        store.held("later-1")
    for content in ('{"default": "later-1", "current": {}}', "{", '{"default": "none", "current": {}}'):
        (release_copy.releases / INDEX_FILE).write_text(content, encoding="utf-8")
        assert store.resolve("").id == default
    (release_copy.releases / INDEX_FILE).unlink()
    assert store.resolve("").id == default


@pytest.mark.parametrize("name", ["../releases", "..", "a/b", "A", "x" * 65, ""])
def test_no_name_leads_out_of_the_folder(release_copy: Any, name: str) -> None:
    with pytest.raises(FailedPreconditionError):
        _open(release_copy).held(name)


def test_an_index_that_comes_before_its_release_is_taken_in_when_that_is_there(release_copy: Any) -> None:
    store = _open(release_copy)
    default = _default(release_copy)
    _edit(release_copy.releases / INDEX_FILE, lambda i: i.update(default="later-1"))
    with capture_logs() as logs:
        for _ in range(3):
            assert store.resolve("").id == default
    assert [line["event"] for line in logs] == ["index refused"], "told once"
    shutil.copytree(release_copy.releases / default, release_copy.releases / "later-1")
    _edit(release_copy.releases / "later-1" / RELEASE_FILE, lambda r: r.update(id="later-1"))
    assert store.resolve("").id == default, "not read again by every request"
    store.take_in()
    assert store.resolve("").id == "later-1"


def test_a_request_reads_a_refused_index_again_after_a_second(release_copy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = _open(release_copy)
    now = 100.0
    monkeypatch.setattr("services.common.releases.time.monotonic", lambda: now)
    _edit(release_copy.releases / INDEX_FILE, lambda i: i.update(default="later-1"))
    assert store.resolve("").id == _open_default(release_copy)
    shutil.copytree(release_copy.releases / _open_default(release_copy), release_copy.releases / "later-1")
    _edit(release_copy.releases / "later-1" / RELEASE_FILE, lambda r: r.update(id="later-1"))
    now += 1.1
    assert store.resolve("").id == "later-1"


def _open_default(copy: Any) -> str:
    return str(next(iter(json.loads((copy.releases / INDEX_FILE).read_text())["current"].values())))


def test_a_file_that_cannot_be_read_is_a_broken_release_and_not_the_end(release_copy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = _open(release_copy)
    shutil.copytree(release_copy.releases / _default(release_copy), release_copy.releases / "later-1")
    _edit(release_copy.releases / "later-1" / RELEASE_FILE, lambda r: r.update(id="later-1"))
    real = sha256_of

    def denied(path: Path) -> str:
        if "later-1" in path.parts:
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr("services.common.releases.sha256_of", denied)
    store.take_in()
    with pytest.raises(FailedPreconditionError):
        store.held("later-1")
    monkeypatch.undo()
    assert store.held("later-1").id == "later-1"


def test_a_broken_release_is_read_once_however_many_calls_come(release_copy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = _open(release_copy)
    default = _default(release_copy)
    shutil.copytree(release_copy.releases / default, release_copy.releases / "later-1")
    _edit(release_copy.releases / "later-1" / RELEASE_FILE, lambda r: r.update(id="later-1"))
    _flip(release_copy.releases / "later-1" / "library.npz")
    read: list[Path] = []
    real = sha256_of

    def counted(path: Path) -> str:
        read.append(path)
        return real(path)

    monkeypatch.setattr("services.common.releases.sha256_of", counted)
    for _ in range(5):
        store.take_in()
        with pytest.raises(FailedPreconditionError):
            store.held("later-1")
        assert store.resolve("").id == default
    assert read == [release_copy.releases / "later-1" / "library.npz"]


def test_a_release_whose_files_take_long_holds_no_call_up_and_is_taken_in_later(release_copy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = _open(release_copy)
    default = _default(release_copy)
    shutil.copytree(release_copy.releases / default, release_copy.releases / "later-1")
    _edit(release_copy.releases / "later-1" / RELEASE_FILE, lambda r: r.update(id="later-1"))
    gate, read, real = threading.Event(), threading.Event(), sha256_of

    def slow(path: Path) -> str:
        assert gate.wait(20)
        read.set()
        return real(path)

    monkeypatch.setattr("services.common.releases.sha256_of", slow)
    for _ in range(3):
        store.take_in()
        with pytest.raises(FailedPreconditionError):
            store.held("later-1")
        assert store.resolve("").id == default
    gate.set()
    assert read.wait(20)
    end = time.monotonic() + 20
    while "later-1" not in {r.id for r in store.releases}:
        store.take_in()
        assert time.monotonic() < end
    assert store.held("later-1").id == "later-1"
