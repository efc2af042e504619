"""Write a release: ``releases/<id>/release.json``, the index, the model's metadata and its card."""

from __future__ import annotations

import datetime
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from services.common.releases import INDEX_FILE, RELEASE_FILE, Index, InputKind, Release, ReleaseStore, Role, sha256_of
from training.errors import RecipeError
from training.files.whole_files import write_json
from training.metrics.by_patient import Interval
from training.releases.card import model_card

METADATA_FILE: Final = "metadata.json"
CARD_FILE: Final = "MODEL_CARD.md"


@dataclass(frozen=True)
class ReleaseParts:
    """The content of a release; see ``services.common.releases.Release``."""

    id: str
    system: str
    title: str
    detects: str
    side: int
    model: str
    files: Mapping[Role, Path]
    """Served file by role of the engine; all in one version folder."""
    library: Path
    preprocessing: Mapping[str, object]
    calibration: Mapping[str, object]
    decision: Mapping[str, object]
    data: Mapping[str, str]
    figures: Mapping[str, Interval | float]
    limits: tuple[str, ...]
    architecture: str
    training: Mapping[str, object]
    classes: tuple[str, ...]
    class_activations: bool


def write_release(parts: ReleaseParts, releases: Path, model_repository: Path) -> Release:
    """Write the release, make it the current one of its system where that has none, and check the whole store.

    Raises:
        RecipeError: a part of it makes no sense, such as a figure that is no number.
        services.common.errors.BrokenReleaseError: what was written does not pass the check that serving makes.
    """
    files = {role.value: {"file": parts.files[role].name, "sha256": sha256_of(parts.files[role])} for role in Role}
    model = {"model": parts.model, "version": int(parts.files[Role.CPU].parent.name), "files": files}
    content = {
        "id": parts.id,
        "system": parts.system,
        "title": parts.title,
        "detects": parts.detects,
        "input": {"kind": InputKind.REGISTERED_SHARPENED.value, "side": parts.side},
        "network": model,
        "embedder": model,
        "library": {"file": parts.library.name, "sha256": sha256_of(parts.library)},
        "preprocessing": parts.preprocessing,
        "calibration": parts.calibration,
        "decision": parts.decision,
        "classes": parts.classes,
        "class_activations": parts.class_activations,
        "data": parts.data,
        "figures": [_figure(name, value) for name, value in parts.figures.items()],
        "limits": parts.limits,
        "created": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    return _write(content, parts.model, {"architecture": parts.architecture, "training": parts.training}, releases, model_repository)


@dataclass(frozen=True)
class PatchReleaseParts:
    """What a release with a network of patches adds to the release whose cell network it takes over; see ``services.common.releases.Patches``."""

    id: str
    system: str
    title: str
    model: str
    file: Path
    """The file that all engines serve, in its version folder."""
    side: int
    patch_side: int
    overlap: float
    nominal_red_cell_radius: float
    min_probability: Mapping[str, float]
    min_activation: float
    suppression_radius: float
    data: Mapping[str, str]
    figures: Mapping[str, Interval | float]
    limits: tuple[str, ...]
    architecture: str
    training: Mapping[str, object]


def write_patch_release(cells: Release, parts: PatchReleaseParts, releases: Path, model_repository: Path) -> Release:
    """Write a release that judges cells as another does, and patches with a network of its own. The library is a copy of its own.

    Args:
        cells: the release whose cell network, library and calibration it has.
        parts: all else.
        releases, model_repository: where it is written; the model files of ``cells`` and the copied library are there.

    Raises:
        RecipeError: a part of it makes no sense, such as a figure that is no number.
        services.common.errors.BrokenReleaseError: what was written does not pass the check that serving makes.
    """
    file = {"file": parts.file.name, "sha256": sha256_of(parts.file)}
    network = {"model": parts.model, "version": int(parts.file.parent.name), "files": {role.value: file for role in Role}}
    content = {
        **cells.model_dump(mode="json"),
        "id": parts.id,
        "system": parts.system,
        "title": parts.title,
        "patches": {
            "network": network,
            "side": parts.side,
            "patch_side": parts.patch_side,
            "overlap": parts.overlap,
            "nominal_red_cell_radius": parts.nominal_red_cell_radius,
            "min_probability": dict(parts.min_probability),
            "min_activation": parts.min_activation,
            "suppression_radius": parts.suppression_radius,
        },
        "data": {**parts.data, "cells": f"the cell network, its library and its calibration are those of {cells.id}"},
        "figures": [_figure(name, value) for name, value in parts.figures.items()],
        "limits": parts.limits,
        "created": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    return _write(content, parts.model, {"architecture": parts.architecture, "training": parts.training}, releases, model_repository)


def _write(content: Mapping[str, Any], model: str, about: Mapping[str, object], releases: Path, model_repository: Path) -> Release:
    release = _validated(content)
    write_json(releases / release.id / RELEASE_FILE, release.model_dump(mode="json"))
    write_index(releases / INDEX_FILE, _updated_index(releases / INDEX_FILE, release))
    metadata = {"release": release.id, **about, **content}
    _write_about(model_repository / model, metadata)
    ReleaseStore(releases, model_repository)
    return release


def _write_about(model: Path, metadata: Mapping[str, Any]) -> None:
    write_json(model / METADATA_FILE, metadata)
    (model / CARD_FILE).write_text(model_card(metadata), encoding="utf-8")


def write_release_content(content: Mapping[str, Any], folder: Path) -> Release:
    """Write ``release.json`` of a release that shares its models with another.

    Raises:
        RecipeError: the content makes no sense.
    """
    release = _validated(content)
    write_json(folder / RELEASE_FILE, release.model_dump(mode="json"))
    return release


def add_limit(release: Release, limit: str, releases: Path, model_repository: Path) -> Release:
    """State a limit that was found after a release was built: in the release, and in the metadata and card of the model that came with it.

    Raises:
        RecipeError: the limit is empty or stated already, or the metadata cannot be read; nothing is changed.
    """
    if not limit.strip() or limit in release.limits:
        raise RecipeError(f"{release.id}: a limit is a sentence that is not stated yet.")
    return restate(release, {"limits": [*release.limits, limit]}, releases, model_repository)


def restate(release: Release, said: Mapping[str, Any], releases: Path, model_repository: Path) -> Release:
    """Change fields of a release and, if a model came with it, of the model's metadata and card.

    Raises:
        RecipeError: it makes no sense, or the metadata cannot be read; nothing is changed.
    """
    content = _validated({**release.model_dump(mode="json"), **said})
    model = model_repository / (release.patches.network if release.patches else release.network).model
    with restored_on_failure([releases / release.id / RELEASE_FILE, model / METADATA_FILE, model / CARD_FILE]):
        write_json(releases / release.id / RELEASE_FILE, content.model_dump(mode="json"))
        try:
            metadata = json.loads((model / METADATA_FILE).read_text(encoding="utf-8"))
            if metadata["release"] == release.id:
                _write_about(model, {**metadata, **said})
        except (ValueError, KeyError) as error:
            raise RecipeError(f"{model / METADATA_FILE} does not describe a model: {error!r}") from error
    return content


@contextmanager
def restored_on_failure(paths: Iterable[Path]) -> Iterator[None]:
    """Restore the content of existing files if anything fails."""
    before = {path: path.read_bytes() for path in paths if path.exists()}
    try:
        yield
    except BaseException:
        for path, content in before.items():
            path.write_bytes(content)
        raise


def activate(release: Release, releases: Path, *, as_default: bool = False) -> None:
    """Make a release the current one of its system, and the default where that was the system's before; the index is swapped whole.

    Args:
        release: which.
        releases: folder of releases.
        as_default: whether it becomes the default in any case.
    """
    path = releases / INDEX_FILE
    index = Index.model_validate_json(path.read_bytes())
    default = release.id if as_default or index.default == index.current.get(release.system) else index.default
    write_index(path, index.model_copy(update={"default": default, "current": {**index.current, release.system: release.id}}))


def install_release(release: str, model: str, staging: Path, releases: Path, model_repository: Path) -> None:
    """Move a release and its model from a staging folder, where ``write_release`` wrote them, to the folders that are served.

    Files of the same names are moved out first and moved back if anything fails. The index is written last. The release becomes
    the current one of its system where that has none; else `activate` makes it so.

    Args:
        release: id.
        model: name of its model.
        staging: folder that holds ``releases`` and ``model_repository``, on the same disk.
        releases, model_repository: where they go.
    """
    moves = [(staging / "model_repository" / model, model_repository / model), (staging / "releases" / release, releases / release)]
    replaced: list[tuple[Path, Path]] = []
    moved: list[Path] = []
    index = releases / INDEX_FILE
    before = index.read_bytes() if index.exists() else None
    try:
        for new, served in moves:
            served.parent.mkdir(parents=True, exist_ok=True)
            if served.exists():
                kept = staging / "replaced" / served.parent.name / served.name
                kept.parent.mkdir(parents=True)
                served.rename(kept)
                replaced.append((kept, served))
            new.rename(served)
            moved.append(served)
        written = Release.model_validate_json((releases / release / RELEASE_FILE).read_bytes())
        write_index(index, _updated_index(index, written))
        ReleaseStore(releases, model_repository)
    except BaseException:
        for served in moved:
            shutil.rmtree(served)
        for kept, served in replaced:
            kept.rename(served)
        if before is None:
            index.unlink(missing_ok=True)
        else:
            index.write_bytes(before)
        raise


def write_index(path: Path, index: Index) -> None:
    """Write an index; a locator appears only where there is one."""
    write_json(path, index.model_dump(mode="json", exclude_none=True))


def _figure(name: str, value: Interval | float) -> dict[str, object]:
    if isinstance(value, Interval):
        return {"name": name, "value": round(value.value, 4), "low": round(value.low, 4), "high": round(value.high, 4)}
    return {"name": name, "value": float(f"{value:.4g}")}


def _validated(content: Mapping[str, Any]) -> Release:
    try:
        return Release.model_validate(content)
    except ValidationError as error:
        lines = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise RecipeError(f"The release {content['id']} cannot be written: {lines}") from error


def _updated_index(path: Path, release: Release) -> Index:
    if not path.exists():
        return Index(default=release.id, current={release.system: release.id})
    index = Index.model_validate_json(path.read_bytes())
    return index.model_copy(update={"current": {release.system: release.id, **index.current}})
