"""Risk against coverage: how often a judge that declines its least certain cells is wrong about the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.files.pictures import COLOURS, save_svg

Double = NDArray[np.float64]
Integers = NDArray[np.int64]
_DRAWN_POINTS: Final = 400
_FIRST_DRAWN: Final = 0.05
"""Share decided from which a curve is drawn: of fewer cells a single wrong one is a spike."""


@dataclass(frozen=True)
class Curve:
    """Selective error at every confidence that occurs, most certain cells first.

    Attributes:
        decided: share of cells at least as certain, ascending, 0..1, float64 (M,).
        error: share of wrong ones among these, float64 (M,).
    """

    decided: Double
    error: Double

    @property
    def area(self) -> float:
        """Area under the curve, 0..1: the mean selective error over all shares decided; lower is better."""
        return float((np.diff(self.decided, prepend=0.0) * self.error).sum())


@dataclass(frozen=True)
class Line:
    """What is drawn of one release.

    Attributes:
        name: of the release.
        fused, network: curves.
        decided, error: operating point of the release: share that it decides, and the share of wrong ones among these.
    """

    name: str
    fused: Curve
    network: Curve
    decided: float
    error: float


def risk_coverage(probability: Double, is_blast: Integers) -> Curve:
    """Order cells by ``|probability - 0.5|`` and decide the most certain first, at 0.5; cells of one confidence are decided together.

    Args:
        probability: (N,) of blast, 0..1.
        is_blast: (N,) 0 or 1; N >= 1.
    """
    confidence = np.abs(probability - 0.5)
    order = np.argsort(-confidence, kind="stable")
    wrong = ((probability >= 0.5) != (is_blast == 1))[order]
    last_of_tie = np.flatnonzero(np.append(np.diff(confidence[order]) != 0, True))
    count = last_of_tie + 1
    return Curve(count / len(wrong), np.cumsum(wrong)[last_of_tie] / count)


def draw(lines: Sequence[Line], path: Path) -> None:
    """Draw the curves of releases as SVG, with the operating point of each.

    Args:
        lines: at most five.
        path: the file.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axis = figure.subplots()
    for line, colour in zip(lines, cycle(COLOURS), strict=False):
        axis.plot(*_thinned(line.fused), color=colour, linewidth=1.4, label=line.name)
        axis.plot(*_thinned(line.network), color=colour, linewidth=0.9, linestyle="--", alpha=0.7)
        axis.plot([100 * line.decided], [100 * line.error], color=colour, marker="o", markersize=7, markeredgecolor="black")
    axis.plot([], [], color="black", linewidth=1.4, label="network and neighbours")
    axis.plot([], [], color="black", linewidth=0.9, linestyle="--", label="network alone")
    axis.plot([], [], color="white", marker="o", markersize=7, markeredgecolor="black", linestyle="none", label="what the release decides")
    axis.set(xlabel="cells decided, most certain first, %", ylabel="wrong among the decided, %", xlim=(0, 101))
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize="small")
    save_svg(figure, path)


def _thinned(curve: Curve) -> tuple[Double, Double]:
    chosen = np.flatnonzero(curve.decided >= min(_FIRST_DRAWN, float(curve.decided[-1])))
    if len(chosen) > _DRAWN_POINTS:
        chosen = chosen[np.linspace(0, len(chosen) - 1, _DRAWN_POINTS).round().astype(int)]
    return 100 * curve.decided[chosen], 100 * curve.error[chosen]
