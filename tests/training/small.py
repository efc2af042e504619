"""Small networks, packs and recipes that train in a second."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from training.architectures.build import Architecture, NetworkConfig, build_network
from training.architectures.network import HEAD, Network
from training.architectures.resnet import Stem
from training.crops.making import MEASURES
from training.crops.packs import Pack, PackHeader, write_pack
from training.datasets.dataset import GroupKind, ImageKind, Subset

SIDE = 32
FOCUS: dict[str, tuple[float, ...]] = {"upscale_factors": (1.0,), "thresholds": (6.0,), "limits": (9.0,)}

RECIPE = """
system = "{system}"
title = "Small."
paper = "none"

[grouped]
network = {{ architecture = "{architecture}", width = 8, embedding = 8, dropout = 0.1 }}

[grouped.pretraining]
input = {{ kind = "center_crop", side = {side} }}
optimiser = {{ kind = "sgd", rate = 0.02 }}
schedule = {{ kind = "triangular" }}
batch = 8
epochs = {epochs}

[grouped.fine_tuning]
input = {{ kind = "registered_sharpened", side = {side} }}
augmentation = {{ flips = true, rotation = 180, stain = 0.1, noise = 0.01 }}
optimiser = {{ kind = "adamw", rate = 3e-3 }}
batch = 8
epochs = {epochs}
class_weights = "group_root"
contrastive_weight = 0.3
average_decay = 0.9

[published]
network = {{ architecture = "{architecture}", width = 8, kernel = "gaussian", lbp_relu = false }}

[published.pretraining]
folds = "by_image"
input = {{ kind = "center_crop", side = {side} }}
normalisation = "scalar"
statistics_from_validation = true
optimiser = {{ kind = "sgd", rate = 0.02 }}
schedule = {{ kind = "triangular" }}
batch = 8
epochs = {epochs}
class_weights = "inverse_count_legacy"
selection = "best_legacy"

[published.fine_tuning]
input = {{ kind = "center_crop", side = {side} }}
normalisation = "none"
optimiser = {{ kind = "sgd", rate = 0.02 }}
schedule = {{ kind = "step" }}
batch = 8
epochs = {epochs}
selection = "best_legacy"

[published.split]
by = "image"
repetitions = 2
"""


def small_network(embedding: int = 16, classes: int = 2, seed: int | None = None, width: int = 4) -> Network:
    """A narrow residual network at full resolution; to be trained it needs a width of 16."""
    if seed is not None:
        import torch

        torch.manual_seed(seed)
    config = NetworkConfig(architecture=Architecture.RESNET18, width=width, stem=Stem.FULL_RESOLUTION, embedding=embedding)
    return build_network(config, {HEAD: classes}, SIDE)


def write_recipe(folder: Path, system: str = "small", architecture: str = "resnet18_lbp", epochs: int = 2, side: int = SIDE) -> Path:
    """A recipe file of the two presets."""
    path = folder / f"{system}.toml"
    path.write_text(RECIPE.format(system=system, architecture=architecture, epochs=epochs, side=side), encoding="utf-8")
    return path


def tissue_pack(count: int = 60, side: int = SIDE, seed: int = 0) -> Pack:
    """Tiles of three classes that differ in colour, two tiles per group."""
    generator = np.random.default_rng(seed)
    labels = np.eye(3, dtype=np.int8)[np.arange(count) // 2 % 3]
    header = PackHeader("lc25000_tiles", ImageKind.TISSUE, ("a", "b", "c"), False, GroupKind.SOURCE_TILE, side, "center_crop")
    return _pack(header, labels, np.full(count, -1, np.int8), np.array([f"t{i // 2:03d}" for i in range(count)]), np.array([""] * count), generator)


def cell_pack(
    patients: int = 18, cells: int = 6, side: int = SIDE, seed: int = 1, input_kind: str = "registered_sharpened", center_crop: int = 0
) -> Pack:
    """Cells of as many patients, half of them blasts, darker than the others; every third patient calibrates or tests."""
    generator = np.random.default_rng(seed)
    count = patients * cells
    labels = np.eye(2, dtype=np.int8)[np.arange(count) % 2]
    groups = np.array([f"P{i // cells:02d}" for i in range(count)])
    given = (Subset.TRAIN, Subset.TRAIN, Subset.CALIBRATION, Subset.TRAIN, Subset.TRAIN, Subset.TEST)
    subsets = np.array([given[i // cells % len(given)].value for i in range(count)])
    focus = FOCUS if input_kind == "registered_sharpened" else None
    classes = ("lymphocyte", "blast_no_lineage_spec")
    header = PackHeader("aml_cells", ImageKind.CELL, classes, False, GroupKind.PATIENT, side, input_kind, center_crop, focus)
    return _pack(header, labels, labels[:, 1].copy(), groups, subsets, generator)


def write_packs(folder: Path, side: int = SIDE, input_kind: str = "registered_sharpened") -> list[Path]:
    """A source and a target pack."""
    paths = [folder / "tissue.pack", folder / "cells.pack"]
    write_pack(tissue_pack(side=side), paths[0])
    write_pack(cell_pack(side=side, input_kind=input_kind), paths[1])
    return paths


def _pack(
    header: PackHeader, labels: np.ndarray, is_blast: np.ndarray, groups: np.ndarray, subsets: np.ndarray, generator: np.random.Generator
) -> Pack:
    count, side = len(labels), header.side
    base = 210 - 70 * labels.argmax(axis=1)[:, None, None, None]
    pixels = np.clip(base + generator.normal(0, 25, (count, side, side, 3)), 0, 255).astype(np.uint8)
    cells = header.kind is ImageKind.CELL
    return Pack(
        header,
        pixels,
        labels,
        is_blast.astype(np.int8),
        keys=np.array([f"{header.dataset}-{i:04d}.png" for i in range(count)]),
        groups=groups,
        subsets=subsets,
        folds=np.array([""] * count),
        sha256=np.array([f"{i:064x}" for i in range(count)]),
        measures={name: np.full(count, 1.0, np.float32) for name in MEASURES} if cells else {},
    )


def patch_pack(patients: int = 18, patches: int = 6, side: int = SIDE, seed: int = 2) -> Pack:
    """Patches with a blast (red), another cell (green), both or none; every third patient calibrates or tests."""
    generator = np.random.default_rng(seed)
    count = patients * patches
    labels = np.stack([np.arange(count) % 2, np.arange(count) // 2 % 2], axis=1).astype(np.int8)
    groups = np.array([f"P{i // patches:02d}" for i in range(count)])
    given = (Subset.TRAIN, Subset.TRAIN, Subset.CALIBRATION, Subset.TRAIN, Subset.TRAIN, Subset.TEST)
    subsets = np.array([given[i // patches % len(given)].value for i in range(count)])
    header = PackHeader(
        "composed_fields", ImageKind.PATCH, ("blast", "other"), True, GroupKind.PATIENT, side, "center_crop", center_crop=256, notes=("drawn",)
    )
    pack = _pack(header, labels, np.full(count, -1, np.int8), groups, subsets, generator)
    pixels = np.full((count, side, side, 3), 200.0) + generator.normal(0, 10, (count, side, side, 3))
    for channel in (0, 1):
        pixels[labels[:, channel] == 1, 8:20, 8 + 6 * channel : 20 + 6 * channel, channel] -= 120
    return replace(pack, pixels=np.clip(pixels, 0, 255).astype(np.uint8))


PATCH_RECIPE = """
system = "small_patches"
title = "Small."
paper = "none"
learns = "patches"

[grouped]
network = { architecture = "resnet18", width = 16, stem = "full_resolution" }

[grouped.warm_up]
input = { kind = "center_crop", center_crop = 256, side = 32 }
optimiser = { kind = "adamw", rate = 1e-3 }
schedule = { kind = "constant" }
batch = 16
epochs = 1

[grouped.fine_tuning]
input = { kind = "center_crop", center_crop = 256, side = 32 }
optimiser = { kind = "adamw", rate = 3e-3 }
batch = 16
epochs = 8
class_weights = "positive"
orthogonality_weight = 0.01
"""


def write_patch_recipe(folder: Path) -> Path:
    """A recipe file of patches."""
    path = folder / "small_patches.toml"
    path.write_text(PATCH_RECIPE, encoding="utf-8")
    return path


INTERLEAVED_RECIPE = """
system = "small_interleaved"
title = "Small."
paper = "none"

[grouped]
network = { architecture = "resnet18", width = 8, embedding = 8, dropout = 0.1 }

[grouped.warm_up]
input = { kind = "registered_sharpened", side = 32 }
optimiser = { kind = "sgd", rate = 1e-2 }
schedule = { kind = "constant" }
batch = 8
epochs = 1

[grouped.interleaving]
variant = "regular"
input = { kind = "center_crop", side = 32 }
readaptation = 5

[grouped.fine_tuning]
input = { kind = "registered_sharpened", side = 32 }
augmentation = { flips = true, rotation = 180, stain = 0.1, noise = 0.01 }
optimiser = { kind = "adamw", rate = 2e-3 }
batch = 12
epochs = 2
class_weights = "group_root"
contrastive_weight = 0.3
average_decay = 0.9
"""


def write_interleaved_recipe(folder: Path) -> Path:
    """A recipe file that learns tissue and cells at once."""
    path = folder / "small_interleaved.toml"
    path.write_text(INTERLEAVED_RECIPE, encoding="utf-8")
    return path
