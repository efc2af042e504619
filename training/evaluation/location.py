"""How well nucleated cells are located: on fields with boxes, on drawn fields and on cells with masks.

dl4all study location --data DIR
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from services.common.image_codec import decode_image
from services.common.phantom import CellKind, single_cell
from services.patching.cells import LocatedCell, central_cell, locate_cells
from services.patching.stain import equivalent_radius
from training.command import explained, program_parser
from training.datasets.fields import Field, read_bccd_fields, read_chula_fields, read_wbc_masks
from training.datasets.location_review import Verdict, verdict
from training.evaluation.drawn_fields import pooled, shares, sweep

Bytes = NDArray[np.uint8]
Mask = NDArray[np.bool_]
CONFIDENCE_CUTS: Final = (0.0, 0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class Located:
    """What was located in some fields.

    Attributes:
        confidences: of every located cell.
        correct: for each, whether it lies in the box of a cell that the annotation names and no other took.
        verdicts: for each that is not correct, what was seen there.
        truth: number of annotated cells.
    """

    confidences: NDArray[np.float64]
    correct: Mask
    verdicts: tuple[Verdict, ...]
    truth: int

    @property
    def unannotated(self) -> Mask:
        """For each, whether it is a nucleated cell that the annotation leaves out."""
        return ~self.correct & np.array([v is Verdict.UNANNOTATED for v in self.verdicts], bool)


def match(cells: Sequence[LocatedCell], field: Field) -> int:
    """How many truth boxes have a located centre inside, one to one."""
    return sum(_matched(cells, field))


def _matched(cells: Sequence[LocatedCell], field: Field) -> list[bool]:
    """For every located cell, whether it is the one that a truth box takes."""
    free = list(range(len(cells)))
    for box in field.boxes:
        inside = next((i for i in free if box.contains(cells[i].center_x, cells[i].center_y)), None)
        if inside is not None:
            free.remove(inside)
    return [i not in free for i in range(len(cells))]


def locate_fields(fields: Sequence[Field]) -> Located:
    """Locate the cells of fields and compare them with their boxes and with what ``location_review`` says of the others."""
    confidences: list[float] = []
    correct: list[bool] = []
    verdicts: list[Verdict] = []
    for field in track(fields, "fields"):
        cells = locate_cells(decode_image(field.path.read_bytes()).pixels).cells
        confidences += [c.confidence for c in cells]
        correct += _matched(cells, field)
        verdicts += [verdict(field.path.stem, c) for c in cells]
    return Located(np.array(confidences), np.array(correct, bool), tuple(verdicts), sum(len(f.boxes) for f in fields))


def score_located(located: Located) -> str:
    """Markdown lines: recall and precision at cuts of the confidence, with and without the reviewed cells, and average precision."""
    lines = ["| confidence at least | recall | precision | precision, cells that the annotation leaves out not counted |", "|---|---|---|---|"]
    for cut in CONFIDENCE_CUTS:
        kept = located.confidences >= cut
        hits, found, extra = int(located.correct[kept].sum()), int(kept.sum()), int(located.unannotated[kept].sum())
        lines.append(
            f"| {cut:g} | {hits / located.truth:.3f} ({hits}/{located.truth}) | {hits / max(1, found):.3f} ({hits}/{found}) "
            f"| {hits / max(1, found - extra):.3f} ({hits}/{found - extra}) |"
        )
    reviewed = ~located.unannotated
    raw = average_precision(located.confidences, located.correct, located.truth)
    without = average_precision(located.confidences[reviewed], located.correct[reviewed], located.truth)
    return "\n".join([*lines, "", f"average precision {raw:.3f}; cells that the annotation leaves out not counted {without:.3f}"])


def score_causes(located: Located) -> str:
    """Markdown table: what was located without having a box of its own, by what was seen there, and what was missed."""
    counts = Counter(v for v, correct in zip(located.verdicts, located.correct, strict=True) if not correct)
    lines = [f"| located, no box of its own | {int((~located.correct).sum())} |", "|---|---|"]
    lines += [f"| {v} | {counts[v]} |" for v in Verdict if counts[v]]
    return "\n".join([*lines, f"| missed boxes | {located.truth - int(located.correct.sum())} |"])


def average_precision(confidences: NDArray[np.float64], correct: Mask, truth: int) -> float:
    """Mean, over the annotated cells, of the precision at the confidence at which each is found; 0 for what is missed."""
    order = np.argsort(-confidences, kind="stable")
    hits = correct[order]
    precision = np.cumsum(hits) / (np.arange(hits.size) + 1)
    return float(precision[hits].sum() / truth)


def _turn_stain(rgb: Bytes) -> Bytes:
    density = -np.log((rgb.astype(np.float64) + 1.0) / 256.0) * np.array([1.15, 1.0, 0.85])
    return np.asarray(np.clip(256.0 * np.exp(-density) - 1.0, 0, 255).round(), np.uint8)


def _stain(strength: float) -> Callable[[Bytes], Bytes]:
    return lambda rgb: np.asarray((255.0 * (np.maximum(rgb, 1) / 255.0) ** strength).round(), np.uint8)


def _light(factor: float) -> Callable[[Bytes], Bytes]:
    return lambda rgb: np.asarray(np.clip(rgb * factor, 0, 255).round(), np.uint8)


def _blur(sigma: float) -> Callable[[Bytes], Bytes]:
    return lambda rgb: np.asarray(cv2.GaussianBlur(rgb, (0, 0), sigma), np.uint8)


def _noise(deviation: float) -> Callable[[Bytes], Bytes]:
    return lambda rgb: np.asarray(np.clip(rgb + np.random.default_rng(0).normal(0, deviation, rgb.shape), 0, 255).round(), np.uint8)


CHANGES: Final[Mapping[str, Callable[[Bytes], Bytes]]] = {
    "as it is": lambda rgb: rgb,
    "blurred, sigma 1 px": _blur(1.0),
    "blurred, sigma 2 px": _blur(2.0),
    "noise, 5 levels": _noise(5.0),
    "noise, 10 levels": _noise(10.0),
    "20 % darker": _light(0.8),
    "15 % brighter, clipped": _light(1.15),
    "stain 30 % paler": _stain(0.7),
    "stain 30 % darker": _stain(1.3),
    "stain redder to bluer": _turn_stain,
}


def score_masks(root: Path) -> str:
    """Markdown table: overlap with masks, errors of radius and centre as shares of the true radius, as it is and under changes."""
    lines = ["| wbc_masks | mean IoU | radius error, median | 90th percentile | centre error, median | not found |", "|---|---|---|---|---|---|"]
    truth = [(decode_image(path.read_bytes()).pixels, mask) for path, mask in read_wbc_masks(root)]
    for name, change in track(CHANGES.items(), "masks"):
        found = [(mask, central_cell(locate_cells(change(rgb)).cells, *mask.shape)) for rgb, mask in truth]
        errors = np.array([_errors(mask, cell) for mask, cell in found if cell is not None])
        missed = 1 - len(errors) / len(truth)
        overlap = errors[:, 0].sum() / len(truth)
        radius, high, centre = np.median(errors[:, 1]), np.percentile(errors[:, 1], 90), np.median(errors[:, 2])
        lines.append(f"| {name} | {overlap:.3f} | {radius:.1%} | {high:.1%} | {centre:.1%} | {missed:.1%} |")
    return "\n".join(lines)


def score_phantoms(count: int = 60) -> str:
    """Errors of radius and centre on drawn cells of known size, blurred by 1.2 px."""
    errors = []
    for seed in range(count):
        phantom = single_cell(seed, (CellKind.BLAST, CellKind.LYMPHOCYTE)[seed % 2], side=264, cell_radius=52)
        (truth,) = phantom.cells
        cell = central_cell(locate_cells(_blur(1.2)(phantom.image)).cells, 264, 264)
        if cell is not None:
            centre = np.hypot(cell.center_x - truth.center_x, cell.center_y - truth.center_y) / truth.radius
            errors.append((abs(cell.radius / truth.radius - 1), float(centre)))
    radius, centre = np.array(errors).T
    return (
        f"radius error median {np.median(radius):.1%}, 95th percentile {np.percentile(radius, 95):.1%}; "
        f"centre error median {np.median(centre):.1%}; not found {count - len(errors)} of {count}"
    )


def score_sweep(count: int = 6) -> str:
    """Markdown table: recall and precision on drawn fields, one change at a time, and pooled."""
    found = sweep(lambda rgb: locate_cells(rgb).cells, count)
    lines = [f"| phantom fields, {count} each | recall | precision |", "|---|---|---|"]
    lines += ["| " + " | ".join((name, *shares(counts))) + " |" for name, counts in (*found.items(), ("**pooled**", pooled(found)))]
    return "\n".join(lines)


def _errors(mask: Mask, cell: LocatedCell) -> tuple[float, float, float]:
    located = np.zeros_like(mask)
    if cell.mask is not None:
        located[cell.y : cell.y + cell.height, cell.x : cell.x + cell.width] = cell.mask
    radius = equivalent_radius(mask)
    rows, columns = np.nonzero(mask)
    centre = np.hypot(columns.mean() - cell.center_x, rows.mean() - cell.center_y) / radius
    return float((mask & located).sum() / (mask | located).sum()), abs(cell.radius / radius - 1), float(centre)


@explained
def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures."""
    parser = program_parser("location", __doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds bccd_fields, chula_fields and wbc_masks")
    data = parser.parse_args(arguments).data
    for name, fields in (("bccd_fields", read_bccd_fields(data / "bccd_fields")), ("chula_fields", read_chula_fields(data / "chula_fields"))):
        located = locate_fields(fields)
        print(f"{name}, {len(fields)} fields\n\n{score_located(located)}\n\n{score_causes(located)}\n")
    print(score_sweep(), "\n")
    print("phantoms:", score_phantoms())
    print(score_masks(data / "wbc_masks"))


if __name__ == "__main__":
    main()
