"""Check releases beyond their checksums: models, configurations and libraries must fit together. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.common.engines.base import PLACE_EMBEDDINGS
from services.common.engines.onnx_runtime import open_session
from services.common.errors import BrokenReleaseError
from services.common.model_repository import ANY_SIDE, CONFIG_FILE, CPU_CONFIG_FILE, SHA256, read_model_config
from services.common.releases import INDEX_FILE, Model, Patches, Release, ReleaseStore, Role
from services.patching.locator_maps import CHANNELS, MAPS, STRIDE
from services.patching.working_image import MULTIPLE
from services.retrieval.library import open_library

_MEAN_TOLERANCE = 0.02
_INPUT, _OUTPUTS, _PATCH_OUTPUTS = "images", ("logits", "embedding", PLACE_EMBEDDINGS), ("logits", "class_activations")


def check_releases(releases: Path, model_repository: Path) -> Iterator[str]:
    """Check all releases; yields one line for each that is whole.

    Raises:
        BrokenReleaseError: a file is missing or does not match its checksum, a configuration states another file, a model does
            not run, or the library was made by a model of another dimension.
    """
    store = ReleaseStore(releases, model_repository)
    if store.index.locator is not None:
        _check_locator(store, INDEX_FILE, store.index.locator, model_repository)
        yield f"{INDEX_FILE}: {store.index.locator.model} finds the cells for releases that name no locator"
    for release in store.releases:
        dimension = _check_model(store, release, release.embedder, model_repository)
        _check_model(store, release, release.network, model_repository)
        _check_judgement(store, release)
        if release.locator is not None:
            _check_locator(store, release.id, release.locator, model_repository)
        if release.patches is not None:
            _check_patches(store, release.id, release.patches, model_repository)
        library = open_library(store.library_path(release), f"{release.embedder.model}/{release.embedder.version}")
        if library.embeddings.shape[1] != dimension:
            raise BrokenReleaseError(
                "RELEASE_BROKEN", f"{release.id}: the library has {library.embeddings.shape[1]} dimensions, the embedder {dimension}."
            )
        files = sorted({f.file for f in release.network.files.values()})
        patches = "" if release.patches is None else f", patches by {release.patches.network.model}"
        references = f"{len(library.reference_ids)} references, {dimension} dimensions"
        yield f"{release.id}: whole; {release.network.model} ({', '.join(files)}){patches}, {references}"


def _check_model(store: ReleaseStore, release: Release, model: Model, model_repository: Path) -> int:
    """Run the files of a cell network on one image; returns the dimension of its embedding."""
    _check_configs(release.id, model, release.input.side, model_repository)
    dimension = 0
    for path, (_, embedding, places) in _outputs(store, model, release.input.side, _OUTPUTS):
        if not np.isfinite(embedding).all() or embedding.shape[1] != places.shape[3]:
            raise BrokenReleaseError("RELEASE_BROKEN", f"{path} gives no sensible embedding.")
        dimension = int(embedding.shape[1])
    return dimension


def _check_judgement(store: ReleaseStore, release: Release) -> None:
    """Run the files of the deciding network on one image: a logit per class, the mean of the class activations where there are any."""
    names = ("logits", "class_activations") if release.class_activations else ("logits",)
    for path, (logits, *activations) in _outputs(store, release.network, release.input.side, names):
        if logits.shape != (1, len(release.classes)):
            raise BrokenReleaseError("RELEASE_BROKEN", f"{path} gives {logits.shape[1]} logits, the release names {len(release.classes)} classes.")
        if activations and not _are_a_mean(logits, activations[0]):
            raise BrokenReleaseError("RELEASE_BROKEN", f"{path} does not give logits that are the mean of its class activations.")


def _are_a_mean(logits: NDArray[np.float32], activations: NDArray[np.float32]) -> bool:
    """Whether logits (1, K) are the mean of class activations (1, h, w, K), up to what int8 and float16 lose in one but not in the other."""
    same_classes = activations.ndim == 4 and activations.shape[3] == logits.shape[1]
    return same_classes and bool(
        np.allclose(activations.mean(axis=(1, 2)), logits, atol=_MEAN_TOLERANCE * max(1.0, float(np.abs(activations).max())))
    )


def _check_patches(store: ReleaseStore, release_id: str, patches: Patches, model_repository: Path) -> None:
    """Run the files of a network of patches on one image: the logits are the mean of the class activations."""
    _check_configs(release_id, patches.network, patches.side, model_repository)
    given = read_model_config(model_repository / patches.network.model).output_shapes
    if set(given) != set(_PATCH_OUTPUTS):
        raise BrokenReleaseError("RELEASE_BROKEN", f"{release_id}: {patches.network.model} is no network of patches: it gives {', '.join(given)}.")
    for path, (logits, activations) in _outputs(store, patches.network, patches.side, _PATCH_OUTPUTS):
        if logits.shape != (1, 2) or activations.ndim != 4 or not np.allclose(activations.mean(axis=(1, 2)), logits, atol=1e-4):
            raise BrokenReleaseError("RELEASE_BROKEN", f"{path} does not give two logits that are the mean of its class activations.")


def _check_locator(store: ReleaseStore, named_by: str, model: Model, model_repository: Path) -> None:
    """Run the files of a locator on one image: the maps that location reads, of half the side."""
    _check_configs(named_by, model, ANY_SIDE, model_repository)
    side = 8 * MULTIPLE
    for path, (maps,) in _outputs(store, model, side, (MAPS,)):
        if maps.shape != (1, CHANNELS, side // STRIDE, side // STRIDE) or not np.isfinite(maps).all():
            raise BrokenReleaseError("RELEASE_BROKEN", f"{path} is no locator: of {side} px it gives {maps.shape}.")


def _check_configs(release_id: str, model: Model, side: int, model_repository: Path) -> None:
    folder = model_repository / model.model
    config = read_model_config(folder)
    if config.input_shape != (side, side, 3):
        raise BrokenReleaseError("RELEASE_BROKEN", f"{release_id}: the release gives {side} px, {folder / CONFIG_FILE} takes {config.input_shape}.")
    _check_stated(folder / CONFIG_FILE, model.files[Role.GPU].sha256)
    _check_stated(folder / CPU_CONFIG_FILE, model.files[Role.CPU].sha256)


def _outputs(store: ReleaseStore, model: Model, side: int, names: tuple[str, ...]) -> Iterator[tuple[Path, list[NDArray[np.float32]]]]:
    """Outputs of every file of a model for one grey image."""
    image = np.full((1, side, side, 3), 200, np.uint8)
    for role in Role:
        path = store.model_path(model, role)
        try:
            found = open_session(path, threads=1).run(list(names), {_INPUT: image})
        except Exception as error:  # onnxruntime raises types of its own for every cause
            raise BrokenReleaseError("RELEASE_BROKEN", f"{path} does not run: {error}") from error
        yield path, found


def _check_stated(config: Path, sha256: str) -> None:
    if f'key: "{SHA256}" value {{ string_value: "{sha256}" }}' not in config.read_text(encoding="utf-8"):
        raise BrokenReleaseError("RELEASE_BROKEN", f"{config} does not state the checksum of the file that the release serves.")
