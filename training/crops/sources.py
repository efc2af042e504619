"""Packs of the data sets that a user names, prepared once and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from services.common.releases import sha256_of
from services.preprocessing.unsharpening import FocusParameters
from training.crops.focus_calibration import fit_focus_parameters, fit_legacy_threshold, with_tuned_threshold
from training.crops.making import prepare
from training.crops.packs import SUFFIX, Pack, read_pack, write_pack
from training.datasets.contradictions import Said, refuse_contradictions
from training.datasets.dataset import Dataset, ImageKind, Subset
from training.datasets.registry import find_folders, read_dataset
from training.datasets.splits import with_subsets
from training.datasets.tissue import ADP, Level, adp_classes, read_adp
from training.errors import DatasetError, RecipeError
from training.files.whole_files import write_json
from training.recipes.config import Input, InputKind

_FOCUS_SAMPLE: Final = 600


@dataclass(frozen=True)
class Sources:
    """What ``--data`` names: folders of data sets, and packs that were made elsewhere.

    Attributes:
        folders: by name of the data set.
        packs: files by name of the data set.
        cache: where prepared packs are kept.
    """

    folders: Mapping[str, Path]
    packs: Mapping[str, tuple[Path, ...]]
    cache: Path

    @classmethod
    def find(cls, data: list[Path], cache: Path) -> Sources:
        """Sort what the user names; see ``find_folders``.

        Raises:
            DatasetError: nothing is known of a path.
        """
        if not data:
            raise DatasetError("Name the data with --data: folders of data sets, a folder that holds several, or packs.")
        packs: dict[str, tuple[Path, ...]] = {}
        for path in (p for p in data if p.suffix == SUFFIX):
            name = read_pack(path).header.dataset
            packs[name] = (*packs.get(name, ()), path)
        return cls(find_folders(p for p in data if p.suffix != SUFFIX), packs, cache)

    @property
    def names(self) -> tuple[str, ...]:
        """Data sets that are there."""
        return tuple(sorted({*self.folders, *self.packs}))

    def dataset(self, name: str, level: Level = 1) -> Dataset:
        """Read a data set from its folder, subsets given.

        Raises:
            DatasetError: it is not there or is broken.
        """
        if name not in self.folders:
            raise DatasetError(f"The data set {name} is not among {', '.join(self.names) or 'the data'}; name its folder with --data.")
        dataset = read_adp(self.folders[name], level) if name == ADP else read_dataset(name, self.folders[name])
        return with_subsets(dataset) if dataset.kind is ImageKind.CELL and dataset.grouped_by != "none" else dataset

    def pack(self, name: str, wanted: Input, level: Level = 1, focus: FocusParameters | None = None) -> Pack:
        """The crops of a data set: from a pack that the user names, from the cache, or made now and kept.

        Args:
            name: of the data set.
            wanted: how crops are made.
            level: of ADP.
            focus: parameters of the sharpening; fitted on the data set's own training cells if None.

        Raises:
            DatasetError: it is not there, or is broken.
            RecipeError: the user's packs are of another side or input.
        """
        if name in self.packs:
            return self._given(name, wanted, level, focus)
        dataset = self.dataset(name, level)
        files = [sha256_of(image.path) for image in dataset.images]
        refuse_contradictions([Said(str(i.path), i.is_blast, i.group) for i in dataset.images], files, dataset.grouped_by, name)
        images = _images_digest(dataset, files)
        if wanted.kind.sharpens and focus is None:
            focus = self._focus(dataset, wanted, images)
        path = self.cache / f"{name}-{_digest(images, wanted, focus)}{SUFFIX}"
        if not path.exists():
            write_pack(prepare(dataset, wanted, focus), path)
        return read_pack(path)

    def _given(self, name: str, wanted: Input, level: Level, focus: FocusParameters | None) -> Pack:
        packs = [read_pack(path) for path in self.packs[name]]
        for pack in packs:
            refuse_contradictions(_said_of(pack), list(pack.sha256), pack.header.grouped_by, name)
        needed = (wanted.side, wanted.kind.value, wanted.center_crop, wanted.subject)
        fitting = [p for p in packs if (p.header.side, p.header.input, p.header.center_crop, p.header.subject) == needed]
        if not fitting:
            have = "; ".join(f"{p.header.input} at {p.header.side} px of {p.header.subject}" for p in packs)
            raise RecipeError(
                f"{name}: the recipe needs {wanted.kind.value} at {wanted.side} px of {wanted.subject}, the packs hold {have}. "
                f"Make one with `dl4all data pack --input {wanted.kind.value} --side {wanted.side} --center-crop {wanted.center_crop} --subject {wanted.subject}`."
            )
        if name == ADP:
            fitting = [p for p in fitting if p.header.classes == adp_classes(level)]
            if not fitting:
                raise RecipeError(
                    f"{name}: the recipe needs level {level}, the packs hold another. Make one with `dl4all data pack --level {level}`."
                )
        if wanted.kind.sharpens and focus is None:
            fitting = [p for p in fitting if p.header.threshold in (None, wanted.threshold)]
            if not fitting:
                raise RecipeError(
                    f"{name}: the pack was sharpened by another threshold than {wanted.threshold}. Make one with `dl4all data pack --threshold {wanted.threshold}`."
                )
        if focus is not None and wanted.kind.sharpens:
            fitting = [p for p in fitting if focus_of(p) == focus]
            if not fitting:
                raise RecipeError(f"{name}: the pack was sharpened with other focus parameters. Make one with `dl4all data pack --focus-from PACK`.")
        return fitting[0]

    def _focus(self, dataset: Dataset, wanted: Input, images: str) -> FocusParameters:
        rule = "" if wanted.threshold == "quantile" else f"-{wanted.threshold}"
        kind = "-legacy" if wanted.kind is InputKind.LEGACY_SHARPENED else ""
        path = self.cache / f"{dataset.name}-{wanted.side}-{images}{kind}{rule}.focus.json"
        if not path.exists():
            training = [i for i in dataset.images if i.subset is Subset.TRAIN and i.is_blast is not None]
            if not training:
                raise RecipeError(f"{dataset.name}: no training cells to fit the focus parameters on; name the set that has them as well.")
            chosen = np.random.default_rng(0).permutation(len(training))[:_FOCUS_SAMPLE]
            sample = [training[i] for i in chosen]
            if kind:
                parameters = fit_legacy_threshold(sample, wanted.side, tuned=bool(rule))
            else:
                parameters = fit_focus_parameters(sample, wanted.side)
                if rule:
                    parameters = with_tuned_threshold(parameters, sample, wanted.side, legacy=wanted.threshold == "tuned_legacy")
            write_json(path, vars(parameters))
        return FocusParameters(**{name: tuple(values) for name, values in json.loads(path.read_text(encoding="utf-8")).items()})


def focus_of(pack: Pack) -> FocusParameters | None:
    """Focus parameters that a pack was made with."""
    return None if pack.header.focus is None else FocusParameters(**pack.header.focus)


def _said_of(pack: Pack) -> list[Said]:
    columns = zip(pack.keys, pack.is_blast, pack.groups, strict=True)
    return [Said(str(key), None if is_blast < 0 else int(is_blast), str(group)) for key, is_blast, group in columns]


def _images_digest(dataset: Dataset, files: Sequence[str]) -> str:
    """Digest of the files and of what is said of them; not of their dates, which copying a data set changes."""
    rows = "\n".join(f"{i.key} {i.classes} {i.group} {i.subset} {file}" for i, file in zip(dataset.images, files, strict=True))
    return hashlib.sha256(rows.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _digest(images: str, wanted: Input, focus: FocusParameters | None) -> str:
    words = f"{images} {wanted.model_dump_json()} {focus}"
    return hashlib.sha256(words.encode()).hexdigest()[:16]
