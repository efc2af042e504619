"""Install a trained locator: the file that is served, its configurations and card, and its name in the index."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from services.common.releases import INDEX_FILE, Index, Model, ReleaseStore, Role, sha256_of
from training.architectures.network import parameter_count
from training.errors import RecipeError
from training.export.locator import export_locator
from training.export.model_configs import write_model_configs
from training.files.whole_files import write_json
from training.learning.checkpoints import load_network
from training.location.run import NETWORK_FILE, load_locator
from training.releases.build import check_id
from training.releases.card import locator_card
from training.releases.write import CARD_FILE, METADATA_FILE, restored_on_failure, write_index

FILE: Final = "model.onnx"
WARM_SIDE: Final = 512
"""Side of the images with which an engine warms the locator up."""
MAX_BATCH: Final = 4
"""Images of one inference, at most: they are of one size only where they come from one slide."""
_VERSION: Final = "1"
_SOURCES: Final[Mapping[str, str]] = {
    "all_idb": "fields of ALL-IDB1 (University of Milan, on application), points and kinds of cells",
    "bccd_fields": "fields of BCCD with boxes (MIT)",
    "chula_fields": "fields of Chula with boxes (MIT)",
    "wbc_masks": "single cells with exact masks",
    "phantoms": "drawn fields",
    "composed_fields": "fields composed of crops of training patients of aml_cells",
    "aml_cells": "crops of training patients, masks by the stain",
    "pbc_cells": "crops of normal cells and platelets, masks by the stain",
}
LIMITS: Final = (
    "It finds nucleated cells. It does not say whether they are blasts.",
    "Smudged cells are often taken for nucleated cells: only some hundred were learned.",
    "All Canon blasts of ALL-IDB1 are of one session: no other session of that camera with blasts was measured.",
    "Where the data give points or boxes only, outlines were learned from the measurement by the stain.",
)


@dataclass(frozen=True)
class LocatorOptions:
    """What is installed where.

    Attributes:
        run: of `dl4all train locator`, without folds.
        model: its name in the model repository, such as locator_1.
        figures: by name, for its card.
        releases, model_repository: where it goes.
        replace: whether a model of this name may be replaced.
    """

    run: Path
    model: str
    figures: Mapping[str, str]
    releases: Path
    model_repository: Path
    replace: bool = False


def install_locator(options: LocatorOptions) -> Model:
    """Export a locator and name it in the index, for all releases that name none of their own. If anything fails nothing is changed.

    Raises:
        GateError: the exported file does not say what the network says.
        TrainingError: the run or the name are at fault.
        services.common.errors.BrokenReleaseError: what was written does not pass the check that serving makes.
    """
    check_id(options.model, options.model, options.releases, options.model_repository, replace=options.replace)
    network = load_locator(options.run)
    _, about = load_network(options.run / NETWORK_FILE)
    if about["fold"] is not None:
        raise RecipeError(f"{options.run} has not seen fold {about['fold']}: install a network of all images.")
    with TemporaryDirectory(prefix=".locator-", dir=options.model_repository.parent) as temporary:
        folder = Path(temporary) / options.model
        path = folder / _VERSION / FILE
        gap = export_locator(network, path)
        write_model_configs(folder, path, WARM_SIDE, MAX_BATCH, any_side=True)
        files = {role.value: {"file": FILE, "sha256": sha256_of(path)} for role in Role}
        model = Model.model_validate({"model": options.model, "version": int(_VERSION), "files": files})
        metadata = _metadata(about, model, parameter_count(network), gap, options.figures)
        write_json(folder / METADATA_FILE, metadata)
        (folder / CARD_FILE).write_text(locator_card(metadata), encoding="utf-8")
        _swap(folder, options.model_repository / options.model, options.releases, options.model_repository, model)
    return model


def _metadata(about: Mapping[str, Any], model: Model, weights: int, gap: float, figures: Mapping[str, str]) -> dict[str, Any]:
    return {
        "title": about["recipe"]["title"],
        "locator": model.model_dump(mode="json"),
        "architecture": f"U-Net to an eighth of the side and back to a half, {weights:,} weights",
        "input": "uint8 NHWC of any side that is a multiple of 8: a field or crop whose red cells have a radius of 6 to 10 px, its background light evened",
        "output": "maps at half the side: centres of nucleated cells, smudged cells and platelets or debris, whole cells, nuclei, offsets to the centre",
        "data": {name: f"{count} images, {_SOURCES[name]}" for name, count in about["images"].items() if count},
        "figures": {**figures, "largest difference of ONNX and torch": f"{gap:.1e}"},
        "limits": LIMITS,
        "training": {**about["recipe"], "seed": about["seed"]},
    }


def _swap(folder: Path, served: Path, releases: Path, model_repository: Path, model: Model) -> None:
    """Move the model to its place and name it; both are undone if the store refuses them."""
    index = releases / INDEX_FILE
    kept = folder.with_name("replaced")
    try:
        with restored_on_failure([index]):
            if served.exists():
                served.rename(kept)
            folder.rename(served)
            write_index(index, Index.model_validate_json(index.read_bytes()).model_copy(update={"locator": model}))
            ReleaseStore(releases, model_repository)
    except BaseException:
        if served.exists() and not folder.exists():
            shutil.rmtree(served)
        if kept.exists():
            kept.rename(served)
        raise
