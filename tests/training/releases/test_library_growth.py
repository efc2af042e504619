"""A library that grows: what is added, what is refused, and that the release in use never changes by itself."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from clients.cli.main import app
from services.common.errors import BrokenReleaseError
from services.common.releases import Figure, ReleaseStore, sha256_of
from services.retrieval.additions import AdditionStore, NewReference
from services.retrieval.library import ReferenceLibrary, open_library
from tests.training.small import cell_pack
from tests.training.small_release import sources_of
from training.datasets.dataset import Subset
from training.errors import GateError, RecipeError
from training.releases.library_growth import (
    BEFORE,
    GATED,
    GrowthOptions,
    check_activation,
    gated_figures,
    grow,
    grown_library,
    usable,
    without_additions,
)
from training.releases.verdicts import CalibrationCells, Verdicts

pytestmark = pytest.mark.slow

ADDED = 5


def references(library: ReferenceLibrary, count: int = ADDED, *, is_blast: bool = False) -> list[NewReference]:
    """Cells like the first references of a class, a little off."""
    random = np.random.default_rng(0)
    of_class = np.flatnonzero(library.is_blast == is_blast)[:count]
    made = []
    for number, index in enumerate(of_class):
        of_index = library.places_of(int(index))
        assert of_index is not None
        places = of_index + random.normal(0, 0.01, library.place_embeddings.shape[1:]).astype(np.float32)
        made.append(NewReference(is_blast, "lymphocyte", f"n{number}", places.mean(axis=(0, 1)), places, f"{number:064x}", 5.0, 6.0, 7.0))
    return made


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    shutil.copytree(built, tmp_path / "copy")
    return tmp_path / "copy"


def options(copy: Path, name: str = "small-1.lib2") -> GrowthOptions:
    return GrowthOptions("small", name, copy / "additions.sqlite", copy / "releases", copy / "model_repository")


def add(copy: Path, embedder: str = "small_1/1", count: int = ADDED) -> AdditionStore:
    store = ReleaseStore(copy / "releases", copy / "model_repository")
    library = open_library(store.library_path(store.resolve("small")))
    additions = AdditionStore(copy / "additions.sqlite")
    additions.add(embedder + str(count), embedder, "elsewhere", "Dr A", references(library, count))
    return additions


def test_a_grown_release_has_the_new_cells_and_is_not_yet_in_use(copy: Path, trained: Path) -> None:
    add(copy)
    before = (copy / "releases" / "small-1" / "library.npz").read_bytes()
    grown = grow(options(copy), sources_of(trained))
    assert grown.added == ADDED
    store = ReleaseStore(copy / "releases", copy / "model_repository")
    assert store.resolve("small").id == "small-1"
    old, new = store.held("small-1"), store.held("small-1.lib2")
    assert (new.network, new.embedder, new.preprocessing) == (old.network, old.embedder, old.preprocessing)
    assert new.library.sha256 == sha256_of(store.library_path(new)) != old.library.sha256
    library = open_library(store.library_path(new))
    assert len(library) == len(open_library(store.library_path(old))) + ADDED
    assert library.reference_ids[-1] == "elsewhere/lymphocyte/5"
    assert {f.name for f in new.figures} == {*GATED, *(BEFORE + name for name in GATED)}
    assert "5 confirmed cells of elsewhere" in new.data["library"]
    assert (copy / "releases" / "small-1" / "library.npz").read_bytes() == before


def test_a_cell_that_was_added_is_its_own_nearest_neighbour(copy: Path) -> None:
    additions = add(copy).read()
    store = ReleaseStore(copy / "releases", copy / "model_repository")
    library = grown_library(open_library(store.library_path(store.resolve("small"))), additions)
    similarity = library.embeddings @ library.embeddings[-ADDED:].T
    assert (similarity.argmax(axis=0) >= len(library) - ADDED).all()
    assert np.allclose(np.linalg.norm(library.embeddings, axis=1), 1.0, atol=1e-3)
    for index in range(len(library) - ADDED, len(library)):
        places = library.places_of(index)
        assert places is not None
        assert np.allclose(places.mean(axis=(0, 1)), library.embeddings[index], atol=0.02)


def test_withdrawn_additions_go_into_no_library(copy: Path, trained: Path) -> None:
    add(copy).withdraw([1, 2], "Dr B", "wrong")
    assert grow(options(copy), sources_of(trained)).added == ADDED - 2


def test_additions_of_another_embedder_are_refused(copy: Path, trained: Path) -> None:
    with pytest.raises(RecipeError, match="no additions of the embedder small_1/1"):
        grow(options(copy), sources_of(trained))
    store = add(copy, "other/1")
    with pytest.raises(RecipeError, match="only of other/1"):
        usable(store.read(), "small_1/1")


def test_the_gate_sees_abstention_and_false_alarms() -> None:
    """Two patients, one with two cells of each class and one with one: patients count alike."""
    groups, blasts = np.array(["a", "a", "a", "a", "b", "b"]), np.array([True, True, False, False, True, False])
    nothing = np.zeros((6, 1), np.float32)
    cells = CalibrationCells(nothing, nothing, blasts, groups, np.ones(6, np.bool_))

    def figures(suspected: list[int], indeterminate: list[int]) -> list[float]:
        flags = np.isin(np.arange(6), suspected), np.isin(np.arange(6), indeterminate)
        return list(gated_figures(cells, Verdicts(np.full(6, 0.5), *flags)).values())

    assert list(gated_figures(cells, Verdicts(np.full(6, 0.5), blasts, ~blasts))) == list(GATED)
    assert figures([0, 1, 4], []) == [1.0, 1.0, 1.0, 1.0], "all right"
    assert figures([0, 4], []) == [0.75, 1.0, 1.0, 1.0], "one blast of two judged normal"
    assert figures([0, 1, 2, 4], []) == [1.0, 0.75, 1.0, 1.0], "one normal cell of two suspected"
    assert figures([0, 1], [4, 5]) == [1.0, 1.0, 0.5, 0.5], "nothing decided of one patient"


def test_an_id_that_is_taken_is_refused(copy: Path, trained: Path) -> None:
    add(copy)
    with pytest.raises(RecipeError, match="another --id"):
        grow(options(copy, "small-1"), sources_of(trained))


def test_activation_refuses_what_does_worse_and_swaps_the_index_otherwise(copy: Path, trained: Path) -> None:
    add(copy)
    grow(options(copy), sources_of(trained))
    store = ReleaseStore(copy / "releases", copy / "model_repository")
    current, candidate = store.held("small-1"), store.held("small-1.lib2")
    check_activation(current, candidate)
    figures = {f.name: f.value for f in candidate.figures}
    worse = {**figures, GATED[0]: figures[BEFORE + GATED[0]] - 0.05}
    with pytest.raises(GateError, match="lowers blasts not judged normal"):
        check_activation(current, candidate.model_copy(update={"figures": tuple(Figure(name=n, value=v) for n, v in worse.items())}))
    lacks = (Figure(name=BEFORE + GATED[0], value=figures[BEFORE + GATED[0]]),)
    with pytest.raises(GateError, match="does not say"):
        check_activation(current, candidate.model_copy(update={"figures": lacks}))
    as_good = tuple(Figure(name=n, value=0.9) for n in figures)
    in_use = candidate.model_copy(update={"figures": tuple(Figure(name=n, value=0.95) for n in GATED)})
    with pytest.raises(GateError, match=r"from 0\.950 to 0\.900"):
        check_activation(in_use, candidate.model_copy(update={"figures": as_good}))
    check_activation(in_use, candidate.model_copy(update={"figures": as_good}), margin=0.06)
    arguments = ["--releases", str(copy / "releases"), "--model-repository", str(copy / "model_repository")]
    result = CliRunner().invoke(app, ["release", "activate", "small-1.lib2", *arguments])
    assert result.exit_code == 0, result.output
    index = ReleaseStore(copy / "releases", copy / "model_repository").index
    assert (index.default, index.current["small"]) == ("small-1.lib2", "small-1.lib2")
    back = CliRunner().invoke(app, ["release", "activate", "small-1", *arguments])
    assert back.exit_code == 0, back.output
    assert ReleaseStore(copy / "releases", copy / "model_repository").index.default == "small-1"


def test_a_refused_activation_changes_nothing(copy: Path, trained: Path) -> None:
    add(copy)
    grow(options(copy), sources_of(trained))
    path = copy / "releases" / "small-1.lib2" / "release.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    for figure in told["figures"]:
        figure["value"] = 1.0 if figure["name"].startswith(BEFORE) else 0.5
    path.write_text(json.dumps(told), encoding="utf-8")
    arguments = ["--releases", str(copy / "releases"), "--model-repository", str(copy / "model_repository")]
    refused = CliRunner().invoke(app, ["release", "activate", "small-1.lib2", *arguments])
    assert refused.exit_code == 1
    assert "lowers" in refused.output
    assert ReleaseStore(copy / "releases", copy / "model_repository").index.default == "small-1"


def test_a_release_of_a_system_that_is_new_becomes_current_and_the_default_where_asked(copy: Path) -> None:
    folder = copy / "releases" / "other-1"
    shutil.copytree(copy / "releases" / "small-1", folder)
    told = json.loads((folder / "release.json").read_text(encoding="utf-8"))
    (folder / "release.json").write_text(json.dumps({**told, "id": "other-1", "system": "other"}), encoding="utf-8")
    where = {"DL4ALL_RELEASES": str(copy / "releases"), "DL4ALL_MODEL_REPOSITORY": str(copy / "model_repository")}
    for words, default in ([], "small-1"), (["--default"], "other-1"):
        result = CliRunner().invoke(app, ["release", "activate", "other-1", *words], env=where)
        assert result.exit_code == 0, result.output
        index = ReleaseStore(copy / "releases", copy / "model_repository").index
        assert (index.default, index.current) == (default, {"small": "small-1", "other": "other-1"})


def test_a_library_of_another_shape_takes_nothing(copy: Path) -> None:
    (first, *_) = add(copy).read()
    store = ReleaseStore(copy / "releases", copy / "model_repository")
    library = open_library(store.library_path(store.resolve("small")))
    other = replace(first, reference=replace(first.reference, place_embeddings=np.zeros((7, 5, library.dimension), np.float32)))
    with pytest.raises(RecipeError, match="place embeddings"):
        grown_library(library, [other])


def test_a_library_that_keeps_its_calibration_cells_grows_without_their_images(copy: Path, trained: Path) -> None:
    add(copy)
    store = ReleaseStore(copy / "releases", copy / "model_repository")
    kept = CalibrationCells.held(open_library(store.library_path(store.held("small-1"))))
    pack = cell_pack(patients=24)
    assert len(kept) == int(pack.in_subset(Subset.CALIBRATION).sum())
    assert not set(kept.groups) & set(pack.groups)
    without = grow(options(copy))
    judged_anew = grow(options(copy, "small-1.lib3"), sources_of(trained))
    assert (without.before, without.after) == (judged_anew.before, judged_anew.after)
    read = [ReleaseStore(copy / "releases", copy / "model_repository").held(name) for name in ("small-1.lib2", "small-1.lib3")]
    assert read[0].calibration == read[1].calibration
    assert read[0].decision == read[1].decision
    assert read[0].library.sha256 == read[1].library.sha256


def test_a_library_that_keeps_none_asks_for_their_data(copy: Path) -> None:
    add(copy)
    path = copy / "releases" / "small-1" / "library.npz"
    bare = {name: array for name, array in np.load(path).items() if not name.startswith("calibration")}
    np.savez(path, **bare)
    release = path.with_name("release.json")
    content = json.loads(release.read_text(encoding="utf-8"))
    content["library"]["sha256"] = sha256_of(path)
    release.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(RecipeError, match="does not keep its calibration cells; name their data set with --data"):
        grow(options(copy))


def test_growing_a_grown_library_takes_every_addition_once_and_none_that_was_withdrawn(copy: Path) -> None:
    additions = add(copy)
    grow(options(copy))
    additions.withdraw([2, 4], "Dr B", "mislabelled")
    again = grow(GrowthOptions("small-1.lib2", "small-1.lib3", copy / "additions.sqlite", copy / "releases", copy / "model_repository"))
    assert again.added == ADDED - 2
    store = ReleaseStore(copy / "releases", copy / "model_repository")
    first, second, third = (open_library(store.library_path(store.held(name))) for name in ("small-1", "small-1.lib2", "small-1.lib3"))
    assert sorted(third.addition_ids[third.addition_ids >= 0]) == [1, 3, 5]
    assert len(set(third.reference_ids)) == len(third) == len(first) + ADDED - 2
    stripped = without_additions(second)
    for name, array in vars(first).items():
        np.testing.assert_array_equal(getattr(stripped, name), array, err_msg=name)
    np.testing.assert_array_equal(third.places_of(0), first.places_of(0))
    assert third.places_of(len(third) - 1) is not None


@pytest.mark.parametrize("subset", [Subset.CALIBRATION, Subset.TEST])
def test_cells_that_calibrate_or_test_the_release_may_not_become_references(copy: Path, subset: Subset) -> None:
    store = ReleaseStore(copy / "releases", copy / "model_repository")
    library = open_library(store.library_path(store.held("small-1")))
    pack = cell_pack(patients=24)
    known = replace(references(library, 1)[0], image_sha256=str(pack.sha256[pack.in_subset(subset)][0]))
    AdditionStore(copy / "additions.sqlite").add("key", "small_1/1", "elsewhere", "Dr A", [known])
    before = sorted(p.name for p in (copy / "releases").iterdir())
    with pytest.raises(RecipeError, match="additions 1 are of images that calibrate or test the release"):
        grow(options(copy))
    assert sorted(p.name for p in (copy / "releases").iterdir()) == before


def test_a_library_of_another_embedder_of_the_same_dimension_is_refused(copy: Path) -> None:
    path = copy / "releases" / "small-1" / "library.npz"
    assert str(open_library(path, "small_1/1").embedder[0]) == "small_1/1"
    with pytest.raises(BrokenReleaseError, match="small_1/1 made its embeddings, not other_1/1"):
        open_library(path, "other_1/1")
