"""The data of the table of ALL-IDB: what is cut out of the fields, once, and where everything lies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from training.crops.sources import Sources
from training.datasets.all_idb import ALL_IDB2, ALL_IDB_PATCHES
from training.datasets.all_idb_cells import ALL_IDB_CELLS, write_all_idb2, write_cells
from training.datasets.all_idb_fields import CROPS, FIELDS
from training.datasets.all_idb_patches import write_patches
from training.datasets.single_cells import AML_CELLS
from training.datasets.tissue import LC25000_TILES
from training.errors import DatasetError

HOUSE: Final = "all_idb"
"""Folder with the fields and tables, see ``training.datasets.all_idb_fields``."""
_CHECKPOINT: Final = "allnet_adp_checkpoints/resnet18_lbcnn_level1.pt"


@dataclass(frozen=True)
class BenchmarkData:
    """Where the data lie.

    Attributes:
        fields: the fields of ALL-IDB1 with their tables.
        tissue: tiles of stained tissue.
        aml_cells: cells of AML patients.
        checkpoint: the published file of ALLNet.
        cut: folder for what is cut out of the fields.
        packs: folder for prepared crops.
    """

    fields: Path
    tissue: Path
    aml_cells: Path
    checkpoint: Path
    cut: Path
    packs: Path

    @classmethod
    def find(cls, data: Path, cache: Path) -> BenchmarkData:
        """Find the data in one folder by the names of theirs.

        Raises:
            DatasetError: the fields of ALL-IDB are not there. What only some rows need is looked for by these.
        """
        fields = data / HOUSE
        missing = [name for name in (FIELDS, CROPS) if not (fields / name).is_file()]
        if missing:
            raise DatasetError(f"{fields} lacks {' and '.join(missing)}: name the folder that holds {HOUSE}/ with --data.")
        return cls(fields, data / LC25000_TILES, data / AML_CELLS, data / _CHECKPOINT, cache / HOUSE, cache / "packs")

    def official_crops(self) -> Sources:
        """ALL-IDB2 in its official layout, without what is known of its fields: for the papers' protocols alone."""
        return self._cut(ALL_IDB2, "official", lambda out: write_all_idb2(self.fields, out, source_fields=False))

    def crops(self) -> Sources:
        """ALL-IDB2 with blocks of fields; crops of fields that are kept back are in no subset that trains, calibrates or tests."""
        return self._cut(ALL_IDB2, "all_idb2", lambda out: write_all_idb2(self.fields, out))

    def cells(self) -> Sources:
        """Windows around the experts' points."""
        return self._cut(ALL_IDB_CELLS, "cells", lambda out: write_cells(self.fields, out))

    def patches(self) -> Sources:
        """ALL-IDB Patches of the fields that are there, labelled as published."""
        return self._cut(ALL_IDB_PATCHES, "patches", lambda out: write_patches(self.fields / "ALL_IDB1", out))

    def with_tissue(self, sources: Sources) -> Sources:
        """The same with the tiles of tissue.

        Raises:
            DatasetError: they are not there.
        """
        if not self.tissue.is_dir():
            raise DatasetError(f"{self.tissue} is missing: rows that learn tissue need it.")
        return Sources({**sources.folders, LC25000_TILES: self.tissue}, {}, self.packs)

    def _cut(self, name: str, folder: str, write: Callable[[Path], object]) -> Sources:
        out = self.cut / folder
        if not out.is_dir():
            self.cut.mkdir(parents=True, exist_ok=True)
            write(out)
        return Sources({name: out}, {}, self.packs)
