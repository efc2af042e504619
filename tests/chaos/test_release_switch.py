"""Another release is put in use while calls run: none is lost, none is answered by a mixture, and a broken release changes nothing."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all_client import DiagnosisClient, ServiceError
from services.common.releases import INDEX_FILE, RELEASE_FILE, ReleaseStore, sha256_of
from services.retrieval.library import open_library
from tests.paths import ROOT
from tests.running import UNREACHABLE, Running, Stack, eventually, own_copy
from training.releases import reference_library as library
from training.releases.write import activate

OLD, NEW = "plain-resnet-1", "plain-resnet-1.lib2"


@dataclass
class Serving:
    """All services, of their own, over a folder of releases of their own."""

    releases: Path
    parts: list[Running]

    @property
    def gateway(self) -> Running:
        return self.parts[-1]


@pytest.fixture(scope="module")
def serving(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    releases = tmp_path_factory.mktemp("switch") / "releases"
    shutil.copytree(ROOT / "releases", releases)
    settings = {"DL4ALL_RELEASES": str(releases)}
    inner = {name: own_copy(stack[name], **settings) for name in ("preprocessing", "patching", "classification", "retrieval")}
    addresses = {f"DL4ALL_GATEWAY_{name.upper()}_ADDRESS": f"dns:///{running.address}" for name, running in inner.items()}
    made = Serving(releases, [*inner.values(), own_copy(stack["gateway"], **settings, **addresses)])
    try:
        for running in made.parts:
            running.start()
        for running in made.parts:
            running.wait_serving()
        yield made
    finally:
        for running in made.parts:
            running.end()


def put(serving: Serving, name: str) -> None:
    """A release with a library that lacks a few references, added as a whole."""
    base = open_library(serving.releases / OLD / "library.npz")
    kept = np.arange(len(base) - 10)
    of_references = ("embeddings", "is_blast", "reference_ids", "cell_classes", "patients", "image_sha256", "centers", "radii", "addition_ids")
    names = (*of_references, "place_embeddings", "place_scales")
    smaller = replace(base, exemplars=np.arange(len(kept), dtype=np.int32), **{n: getattr(base, n)[kept] for n in names})
    folder = serving.releases.parent / name
    library.save(smaller, folder / "library.npz")
    content = json.loads((serving.releases / OLD / RELEASE_FILE).read_text(encoding="utf-8"))
    content |= {"id": name, "library": {"file": "library.npz", "sha256": sha256_of(folder / "library.npz")}}
    (folder / RELEASE_FILE).write_text(json.dumps(content), encoding="utf-8")
    folder.rename(serving.releases / name)


@dataclass
class Load:
    """Callers that never stop, and their answers."""

    address: str
    image: bytes
    answers: list[diagnosis_pb2.Diagnosis] = field(default_factory=list)
    errors: list[ServiceError] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Load:
        self._threads = [threading.Thread(target=self._call) for _ in range(3)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        with DiagnosisClient(self.address) as client:
            while not self._stop.is_set():
                try:
                    self.answers.append(client.diagnose(self.image))
                except ServiceError as error:
                    self.errors.append(error)

    def releases(self) -> list[str]:
        return [a.provenance.release for a in self.answers]

    def answers_last(self, name: str) -> bool:
        return self.releases()[-1:] == [name]


def library_of(diagnosis: diagnosis_pb2.Diagnosis) -> str:
    return next(f.sha256 for f in diagnosis.provenance.served_files if f.name == "library")


def test_a_release_is_put_in_use_and_out_of_use_under_load(serving: Serving, phantom_cell: bytes) -> None:
    with Load(serving.gateway.address, phantom_cell) as load:
        eventually(lambda: len(load.answers) >= 5, 60)
        put(serving, NEW)
        activate_new(serving)
        eventually(lambda: load.releases()[-1:] == [NEW], 30, "the new release answers")
        (serving.releases / INDEX_FILE).write_text("{ half", encoding="utf-8")
        before = len(load.answers)
        eventually(lambda: len(load.answers) >= before + 10, 60)
        assert set(load.releases()[before + 3 :]) == {NEW}
        broken = json.loads((ROOT / "releases" / INDEX_FILE).read_text(encoding="utf-8"))
        shutil.copytree(serving.releases / NEW, serving.releases / "plain-resnet-1.lib3")
        third = serving.releases / "plain-resnet-1.lib3" / "release.json"
        third.write_text(json.dumps({**json.loads(third.read_text(encoding="utf-8")), "id": "plain-resnet-1.lib3"}), encoding="utf-8")
        third.with_name("library.npz").write_bytes(b"half")
        (serving.releases / INDEX_FILE).write_text(json.dumps({**broken, "default": "plain-resnet-1.lib3"}), encoding="utf-8")
        before = len(load.answers)
        eventually(lambda: len(load.answers) >= before + 10, 60)
        assert set(load.releases()[before + 3 :]) == {NEW}
        shutil.copyfile(ROOT / "releases" / INDEX_FILE, serving.releases / INDEX_FILE)
        eventually(lambda: load.releases()[-1:] == [OLD], 30, "the old release answers again")
    assert load.errors == []
    by_release = {release: {library_of(a) for a in load.answers if a.provenance.release == release} for release in (OLD, NEW)}
    assert by_release == {r: {sha256_of(serving.releases / r / "library.npz")} for r in (OLD, NEW)}


def test_other_systems_are_put_in_use_under_load(serving: Serving, phantom_cell: bytes) -> None:
    """Each with networks and a library of its own: a mixture would show in the files that took part."""
    order = ("dss-1", "dl4all-vit-1", "allnet-1", OLD)
    store = ReleaseStore(ROOT / "releases", ROOT / "model_repository")
    with Load(serving.gateway.address, phantom_cell) as load:
        eventually(lambda: len(load.answers) >= 5, 60)
        for name in order:
            activate(store.held(name), serving.releases, as_default=True)
            eventually(partial(load.answers_last, name), 30, f"{name} answers")
    assert load.errors == []
    assert set(load.releases()) == set(order)
    for answer in load.answers:
        release = store.held(answer.provenance.release)
        locator = store.locator(release.id)
        assert locator is not None
        models = {release.network.model, release.embedder.model, locator.model}
        assert {f.name for f in answer.provenance.served_files} == {*models, "library"}
        assert library_of(answer) == release.library.sha256


def activate_new(serving: Serving) -> None:
    activate(ReleaseStore(serving.releases, ROOT / "model_repository").held(NEW), serving.releases)


def test_a_release_that_was_put_there_is_named_by_the_health_of_all_parts_before_it_is_used(serving: Serving) -> None:
    name = "plain-resnet-1.lib4"
    assert [part.health(f"release/{name}") for part in serving.parts] == [UNREACHABLE] * len(serving.parts)
    put(serving, name)
    eventually(lambda: [part.health(f"release/{name}") for part in serving.parts] == [1] * len(serving.parts), 30, "the new release can be used")


def test_a_release_that_is_not_there_is_still_refused(serving: Serving, phantom_cell: bytes) -> None:
    with DiagnosisClient(serving.gateway.address) as client:
        for name in ("plain-resnet-9", "../plain-resnet-1", ".", "x" * 100):
            with pytest.raises(ServiceError) as caught:
                client.diagnose(phantom_cell, release=name)
            assert caught.value.reason == "RELEASE_UNKNOWN"
