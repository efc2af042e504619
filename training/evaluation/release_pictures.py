"""Pictures of the decisions of releases on their test patients: reliability of the probabilities, and decisions by patient."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.files.pictures import save_svg
from training.metrics.by_patient import bootstrap_by_patient

Double = NDArray[np.float64]
Flags = NDArray[np.bool_]
BINS: Final = (0.0, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98, 1.0)
"""Edges of the bins of probability; finer at the ends, where most cells are."""
MIN_CELLS: Final = 10
"""Cells that a bin needs to be drawn."""
_RESAMPLES: Final = 500
_SUSPECTED, _INDETERMINATE, _NORMAL = "#b3372f", "#d9b44a", "#7f9fbf"


def reliability(probability: Double, is_blast: NDArray[np.int64], patients: NDArray[np.str_]) -> Double:
    """Observed share of blasts by predicted probability.

    Args:
        probability: (N,) of blast, 0..1.
        is_blast: (N,) 0 or 1.
        patients: (N,).

    Returns:
        float64 (B, 4): mean probability, share of blasts, and its 95 % interval by patient, of every bin with at least ``MIN_CELLS`` cells.
    """
    bin_of = np.clip(np.digitize(probability, BINS) - 1, 0, len(BINS) - 2)
    rows = []
    for own in (bin_of == k for k in range(len(BINS) - 1)):
        if own.sum() < MIN_CELLS:
            continue
        share = bootstrap_by_patient(_share_of_blasts, probability[own], is_blast[own], patients[own], _RESAMPLES)
        rows.append((float(probability[own].mean()), share.value, share.low, share.high))
    return np.array(rows).reshape(-1, 4)


def _share_of_blasts(_: Double, is_blast: NDArray[np.int64], weights: Double) -> float:
    return float((weights * is_blast).sum() / weights.sum())


def draw_reliability(found: Mapping[str, Double], path: Path) -> None:
    """Draw the reliability of releases, a panel each, as SVG."""
    from matplotlib.figure import Figure

    columns = min(4, len(found))
    rows = -(-len(found) // columns)
    figure = Figure(figsize=(2.9 * columns, 2.9 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for panel, (name, bins) in zip(panels, found.items(), strict=False):
        panel.plot([0, 1], [0, 1], color="#999999", linewidth=0.8)
        panel.errorbar(
            bins[:, 0],
            bins[:, 1],
            yerr=np.abs(bins[:, 2:].T - bins[:, 1]),
            color="#1f6fb2",
            marker="o",
            markersize=3.5,
            linewidth=1.2,
            elinewidth=0.8,
        )
        panel.set_title(name, fontsize="medium")
        panel.grid(alpha=0.3)
    for panel in panels[len(found) :]:
        panel.set_visible(False)
    figure.supxlabel("probability of blast that the release gives")
    figure.supylabel("share of blasts among these cells")
    save_svg(figure, path)


def draw_verdicts_by_patient(
    name: str, patients: NDArray[np.str_], is_blast: NDArray[np.int64], suspected: Flags, indeterminate: Flags, path: Path
) -> None:
    """Draw the decisions on the blasts and the normal cells of each patient, as stacked bars, as SVG.

    Args:
        name: of the release.
        patients: str (N,).
        is_blast: (N,) 0 or 1.
        suspected, indeterminate: bool (N,).
        path: the file.
    """
    from matplotlib.figure import Figure

    names = np.unique(patients)
    said = (
        ("suspected", _SUSPECTED, suspected),
        ("indeterminate", _INDETERMINATE, indeterminate),
        ("not suspected", _NORMAL, ~(suspected | indeterminate)),
    )
    figure = Figure(figsize=(max(6.0, 0.45 * len(names)), 4.6), layout="constrained")
    for axis, (title, label) in zip(figure.subplots(2, 1, sharex=True), (("blasts", 1), ("normal cells", 0)), strict=True):
        own = [(patients == p) & (is_blast == label) for p in names]
        total = np.array([o.sum() for o in own])
        bottom = np.zeros(len(names))
        for words, colour, flags in said:
            height = np.array([(flags & o).sum() for o in own]) / np.maximum(total, 1)
            axis.bar(range(len(names)), height, bottom=bottom, color=colour, label=words, width=0.8)
            bottom += height
        for x, count in enumerate(total):
            axis.text(x, 1.02, str(count), ha="center", va="bottom", fontsize="x-small")
        axis.set(ylabel=f"share of {title}", ylim=(0, 1.12))
    axis.set_xticks(range(len(names)), names, rotation=90, fontsize="small")
    figure.suptitle(f"{name}: every test patient; above the bars, how many cells", fontsize="medium")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    save_svg(figure, path)
