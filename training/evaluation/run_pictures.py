"""Pictures of cross-validated runs: learning curves, and the AUC of every patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Final

import numpy as np

from training.files.pictures import COLOURS, save_svg
from training.metrics.by_patient import auc
from training.runs.arms import Arm

MIN_OF_EACH: Final = 5
"""Blasts and normal cells that a patient must have for an AUC of his own."""
_PANELS_IN_A_ROW: Final = 4


def draw_curves(sides: Mapping[str, Sequence[Arm]], path: Path) -> None:
    """Draw the training loss of every fold of every run by epoch, one panel per recipe, one colour per side, as SVG."""
    from matplotlib.figure import Figure

    colours = dict(zip(sides, cycle(COLOURS), strict=False))
    systems = sorted({a.system for arms in sides.values() for a in arms})
    columns = min(len(systems), _PANELS_IN_A_ROW)
    rows = -(-len(systems) // columns)
    figure = Figure(figsize=(3.8 * columns, 3.0 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, system in zip(panels, systems, strict=False):
        own = {name: [a for a in arms if a.system == system] for name, arms in sides.items()}
        for name, arms in ((n, a) for n, a in own.items() if a):
            colour = colours[name]
            for history in (h for arm in arms for h in arm.histories):
                panel.plot([row["epoch"] for row in history], [row["loss"] for row in history], color=colour, alpha=0.45, linewidth=1)
            panel.plot([], [], color=colour, label=name)
        panel.set(title=system, xlabel="epoch", ylabel="training loss")
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(alpha=0.3)
        panel.legend(frameon=False, fontsize="small")
    for panel in panels[len(systems) :]:
        panel.set_visible(False)
    save_svg(figure, path)


def draw_auc_by_patient(sides: Mapping[str, Sequence[Arm]], path: Path) -> None:
    """Draw the AUC of every patient, mean over seeds, hardest first, one colour per side, as SVG; patients with few cells of a class are left out."""
    from matplotlib.figure import Figure

    first = next(iter(sides.values()))[0]
    patients = [p for p in np.unique(first.patients) if min(np.bincount(first.is_blast[first.patients == p], minlength=2)) >= MIN_OF_EACH]
    found = {name: np.array([[_auc_of(arm, p) for p in patients] for arm in arms]).mean(axis=0) for name, arms in sides.items()}
    order = np.argsort(np.mean(list(found.values()), axis=0))
    figure = Figure(figsize=(max(6.0, 0.24 * len(patients)), 4.0), layout="constrained")
    axis = figure.subplots()
    for (name, values), colour in zip(found.items(), cycle(COLOURS), strict=False):
        axis.plot(range(len(patients)), values[order], color=colour, marker="o", markersize=3.5, linestyle="none", alpha=0.8, label=name)
    axis.set_xticks(range(len(patients)), [patients[i] for i in order], rotation=90, fontsize="x-small")
    axis.set(ylabel="AUC of the patient's cells, not seen in training", xlim=(-0.7, len(patients) - 0.3))
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize="small", loc="lower right")
    save_svg(figure, path)


def _auc_of(arm: Arm, patient: str) -> float:
    own = arm.patients == patient
    return auc(arm.margins[own], arm.is_blast[own])
