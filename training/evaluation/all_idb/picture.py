"""The table of ALL-IDB as a picture: what a protocol says of the same networks, and what the camera and colours say without looking at a cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from training.errors import RecipeError
from training.evaluation.all_idb.confounders import CAMERA, COLOURS, SIZE
from training.evaluation.all_idb.honest import NETWORKS
from training.evaluation.all_idb.record import Record
from training.evaluation.all_idb.rows import ROWS
from training.evaluation.all_idb.table import mean_of
from training.files.pictures import COLOURS as PALETTE
from training.files.pictures import save_svg

_NETWORK, _CANON, _RIVAL, _CAMERA = PALETTE[0], PALETTE[2], PALETTE[1], PALETTE[4]
_ROW_HEIGHT: Final = 0.3


def draw(record: Record, path: Path) -> None:
    """Draw the AUC of every row as SVG: the papers' protocols on the left, unseen sessions and blocks of fields on the right.

    Args:
        record: with the sections ``published``, ``honest`` and ``baselines``.
        path: the file.

    Raises:
        RecipeError: a section is missing.
    """
    if missing := [s for s in ("published", "honest", "baselines") if s not in record]:
        raise RecipeError(f"The record has no {' and no '.join(missing)}; run `dl4all study all-idb --data DATA` first.")
    from matplotlib.figure import Figure

    rows = [row for row in ROWS if row.name in record["published"]]
    networks = [n for n in NETWORKS if n.name in record["honest"]]
    titles = [f["title"] for f in record["baselines"]["all"][COLOURS]["figures"]]
    height = _ROW_HEIGHT * max(len(rows), len(titles) * (len(networks) + 1)) + 1.6
    figure = Figure(figsize=(12.0, height), layout="constrained")
    left, right = figure.subplots(1, 2)
    _papers(left, [(row.system + (f", {row.protocol}" if row.learns_patches else ""), record["published"][row.name]) for row in rows])
    _unseen(right, titles, {n.title: record["honest"][n.name]["figures"] for n in networks}, record["baselines"]["all"])
    save_svg(figure, path)


def _papers(axis: Any, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    for y, (_, figures) in enumerate(rows):
        baselines = figures["baselines"]
        marks = (
            (mean_of(figures["network"], "auc"), "o", _NETWORK, "network, both cameras"),
            (mean_of(figures["network"], "canon_auc"), "s", _CANON, "network, Canon alone"),
            (mean_of(baselines[CAMERA], "auc"), "|", _CAMERA, "the camera alone, both cameras"),
            (mean_of(baselines[COLOURS], "canon_auc"), "x", _RIVAL, "colours alone, Canon alone"),
        )
        for value, marker, colour, label in marks:
            if value is not None:
                axis.plot(
                    [value], [y], marker=marker, color=colour, linestyle="none", label=label if y == 0 else None, markersize=8 if marker == "|" else 6
                )
    _finish(axis, [name for name, _ in rows], "papers' protocols:\none field trains and tests")


def _unseen(axis: Any, titles: Sequence[str], networks: Mapping[str, Sequence[Mapping[str, Any]]], baselines: Mapping[str, Any]) -> None:
    names: list[str] = []
    for i, title in enumerate(titles):
        of_baselines = {name: baselines[name]["figures"][i]["auc"]["value"] for name in (COLOURS, SIZE)}
        rival = max(of_baselines, key=of_baselines.__getitem__)
        lines = [
            (f"{title}: {rival}", baselines[rival]["figures"][i], "x", _RIVAL),
            *((n, figures[i], "o", _NETWORK) for n, figures in networks.items()),
        ]
        for name, figure, marker, colour in lines:
            auc = figure["auc"]
            axis.plot([auc["low"], auc["high"]], [len(names)] * 2, color=colour, linewidth=1.2, alpha=0.6)
            axis.plot([auc["value"]], [len(names)], marker=marker, color=colour, linestyle="none")
            names.append(name)
    _finish(axis, names, "unseen sessions or fields:\nintervals by session or block")


def _finish(axis: Any, names: Sequence[str], label: str) -> None:
    axis.set_yticks(range(len(names)), names, fontsize="small")
    axis.invert_yaxis()
    axis.set_title(label, fontsize="medium")
    axis.set_xlabel("AUC")
    axis.set_xlim(None, 1.01)
    axis.grid(alpha=0.3)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2)
