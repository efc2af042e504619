"""What a finished run says: figures as text and JSON, learning curves as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.files.pictures import save_svg
from training.files.whole_files import write_json
from training.learning.checkpoints import load_network
from training.metrics.by_patient import auc, protocol_figures
from training.runs.folder import NETWORK_FILE, PREDICTIONS_FILE, Predictions

SUMMARY_FILE: Final = "summary.json"
CURVES_FILE: Final = "curves.svg"


def write_report(folder: Path) -> list[str]:
    """Write ``summary.json`` and ``curves.svg`` of a run, all parts finished.

    Returns:
        The figures as lines of text: of every part; of all folds together, or over the repetitions of the papers' protocol.
    """
    parts = sorted(p.parent for p in folder.glob(f"*/{PREDICTIONS_FILE}"))
    found = {p.name: Predictions.load(p / PREDICTIONS_FILE) for p in parts}
    lines: list[str] = []
    summary: dict[str, float | list[float]] = {}
    for name, predictions in found.items():
        for part in np.unique(predictions.part):
            chosen = predictions.part == part
            value = auc(predictions.margin[chosen], predictions.is_blast[chosen].astype(np.int64))
            summary[f"{name}, {part}, AUC"] = value
            lines.append(f"{name}, {part}: AUC {value:.4f}, {chosen.sum()} cells of {len(np.unique(predictions.groups[chosen]))} groups")
    tests = [_accuracy(p, p.part == "test") for p in found.values() if (p.part == "test").any()]
    if tests:
        summary["test accuracy, mean and deviation over repetitions"] = [float(np.mean(tests)), float(np.std(tests))]
        lines.append(f"test accuracy, mean and deviation over {len(tests)} repetitions: {np.mean(tests):.4f}, {np.std(tests):.4f}")
    else:
        margin, is_blast, groups = (np.concatenate(c) for c in zip(*((p.margin, p.is_blast, p.groups) for p in found.values()), strict=True))
        probability = 1.0 / (1.0 + np.exp(-np.clip(margin, -50, 50)))
        for figure, interval in protocol_figures(probability, is_blast.astype(np.int64), groups).items():
            summary[f"pooled, {figure}"] = [interval.value, interval.low, interval.high]
            lines.append(f"pooled, {figure}: {interval}")
    write_json(folder / SUMMARY_FILE, summary)
    draw_curves({p.name: load_network(p / NETWORK_FILE)[1]["history"] for p in parts}, folder / CURVES_FILE)
    return [*lines, f"learning curves: {folder / CURVES_FILE}"]


def _accuracy(predictions: Predictions, chosen: NDArray[np.bool_]) -> float:
    return float(((predictions.margin > 0) == (predictions.is_blast == 1))[chosen].mean())


def draw_curves(histories: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Draw loss, and validation accuracy where there is one, by epoch, as SVG.

    Args:
        histories: rows per epoch, by name of the part.
        path: the file.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axis = figure.subplots()
    for name, history in histories.items():
        axis.plot([h["epoch"] for h in history], [h["loss"] for h in history], label=name, linewidth=1.2)
    axis.set(xlabel="epoch", ylabel="training loss")
    axis.grid(alpha=0.3)
    if any("validation_accuracy" in h for history in histories.values() for h in history):
        other = axis.twinx()
        for name, history in histories.items():
            other.plot(
                [h["epoch"] for h in history], [h["validation_accuracy"] for h in history], linestyle="--", linewidth=1, label=f"{name}, validation"
            )
        other.set(ylabel="validation accuracy (dashed)")
    axis.legend(frameon=False, fontsize="small")
    save_svg(figure, path)
