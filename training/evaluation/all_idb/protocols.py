"""Splits of ALL-IDB that keep sessions and blocks of fields whole, and what is scored of each.

One network is trained per part, and judges the cells of its test block alone. Figures pool the scores of all parts of a protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.crops.packs import Pack
from training.datasets.dataset import GroupKind
from training.datasets.splits import Split, refuse_leak
from training.errors import SplitError

Flags = NDArray[np.bool_]
OLYMPUS, CANON = "olympus", "canon"
_HEALTHY: Final = "-healthy"


@dataclass(frozen=True)
class Protocol:
    """A way to train and test.

    Attributes:
        name: of its folder.
        title: for people.
        parts: splits of the cells by name; every cell is tested at most once.
    """

    name: str
    title: str
    parts: Mapping[str, Split]


@dataclass(frozen=True)
class Figure:
    """Which scores of a protocol one figure is of.

    Attributes:
        protocol: name of the protocol.
        title: for people.
        leukaemic_fields: whether normal cells of healthy fields are left out, so that both classes come from the same fields.
    """

    protocol: str
    title: str
    leukaemic_fields: bool


FIGURES: Final = (
    Figure("olympus", "Olympus, unseen session", True),
    Figure("canon", "Canon, unseen fields of a known session", True),
    Figure("canon", "Canon, the same and healthy fields", False),
    Figure("olympus-to-canon", "learned on Olympus, Canon", True),
    Figure("canon-to-olympus", "learned on Canon, Olympus", True),
)


def honest_protocols(cells: Pack) -> dict[str, Protocol]:
    """Protocols by name: the Olympus by session, the Canon in blocks of fields, and each camera against the other.

    Args:
        cells: windows of ``all_idb_cells`` that are blast or normal; their folds are ``olympus-1`` to ``-3`` and ``canon-1`` to ``-5``.

    Raises:
        SplitError: a camera has fewer than two folds, or a split leaks.
    """
    olympus, canon = camera_cells(cells, OLYMPUS), camera_cells(cells, CANON)
    protocols = (
        Protocol("olympus", "Olympus, by session", _by_fold(cells, olympus)),
        Protocol("canon", "Canon, by block of fields", _by_fold(cells, canon)),
        Protocol("olympus-to-canon", "learned on Olympus, judged on Canon", {"canon": _split(cells, olympus, canon)}),
        Protocol("canon-to-olympus", "learned on Canon, judged on Olympus", {"olympus": _split(cells, canon, olympus)}),
    )
    return {p.name: p for p in protocols}


def camera_cells(cells: Pack, camera: str) -> Flags:
    """Which cells a camera took, bool (N,)."""
    return np.char.startswith(cells.folds, camera)


def scored_cells(cells: Pack, figure: Figure) -> Flags:
    """Which cells a figure is of, bool (N,), among those that its protocol tests."""
    return ~np.char.endswith(cells.groups, _HEALTHY) if figure.leukaemic_fields else np.ones(len(cells), np.bool_)


def _by_fold(cells: Pack, chosen: Flags) -> dict[str, Split]:
    folds = np.unique(cells.folds[chosen])
    if len(folds) < 2:
        raise SplitError(f"{cells.header.dataset}: folds {folds.tolist()} cannot be cross-validated; are all fields there?")
    return {str(fold): _split(cells, chosen & (cells.folds != fold), chosen & (cells.folds == fold)) for fold in folds}


def _split(cells: Pack, train: Flags, test: Flags) -> Split:
    split = Split(np.flatnonzero(train), np.zeros(0, np.int64), np.flatnonzero(test))
    refuse_leak(split, cells.groups, GroupKind.BLOCK, cells.sha256)
    return split
