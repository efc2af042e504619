"""Compare how nucleated cells are found: by the stain alone, and by locators that have not seen the sessions, slides or blocks that they search.

dl4all study locators --data DATA --run build/runs/locator-folds-0
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from services.patching import locating
from services.patching.cells import LocatedCell, central_cell, locate_cells
from services.patching.locator_maps import OFFSET_X, Kind
from services.patching.stain import equivalent_radius
from training.architectures.locator import LocatorNetwork
from training.command import explained, program_parser
from training.datasets.all_idb_fields import CellClass, Field, Point, read_fields, read_points
from training.datasets.all_idb_unmarked import UNMARKED
from training.datasets.location_review import Verdict, verdict
from training.errors import RecipeError
from training.evaluation.drawn_fields import Locate, pooled, shares, sweep
from training.files.whole_files import write_json
from training.location.annotated import FOLDS
from training.location.run import load_locator
from training.location.sources import ALL_IDB, BCCD, CHULA, PHANTOMS, SOURCES, WBC

Bytes = NDArray[np.uint8]
Float = NDArray[np.float32]
Mask = NDArray[np.bool_]
STAIN, LEARNED = "by the stain", "by the locator"
NEAR: Final = 60.0
"""What was seen by eye holds within so many px."""
_ORDER: Final = (CellClass.BLAST, CellClass.NORMAL, CellClass.UNKNOWN, CellClass.SMUDGED, CellClass.NO_CELL)
"""Points take boxes in this order, so that a platelet beside a cell does not take its box."""
_SMUDGED_BY_EYE: Final = "smudged, without a point"
_NOTHING: Final = "no point"


def network_of(network: LocatorNetwork) -> Callable[[Bytes], Float]:
    """A locator as it is served: maps of one working image."""

    def maps(seen: Bytes) -> Float:
        with torch.inference_mode():
            said = network(torch.from_numpy(seen.transpose(2, 0, 1)[None].astype(np.float32) / 255.0))[0]
            said[:OFFSET_X] = said[:OFFSET_X].sigmoid()
        return np.asarray(said.numpy(), np.float32)

    return maps


def located_by(network: LocatorNetwork) -> Locate:
    """Finds cells with a locator."""
    maps = network_of(network)
    return lambda rgb: locating.run(locating.locate(rgb), maps).cells


def located_by_stain(rgb: Bytes) -> Sequence[LocatedCell]:
    """Finds cells by the stain alone."""
    return locate_cells(rgb).cells


@dataclass(frozen=True)
class FieldOfPoints:
    """What was found in one field of ALL-IDB1.

    Attributes:
        camera: of the field.
        found, there: points by class, those that a box holds and all.
        boxes: by what they hold: a class of points, smudged cells that no point names, or nothing.
        missed: blasts and normal cells that no box holds, with their kinds.
        empty: boxes that hold nothing, by their centres.
    """

    camera: str
    found: Counter[str]
    there: Counter[str]
    boxes: Counter[str]
    missed: tuple[tuple[str, int, int, str], ...]
    empty: tuple[tuple[str, int, int], ...]


def match_points(cells: Sequence[LocatedCell], field: Field, points: Sequence[Point]) -> FieldOfPoints:
    """Give each point the nearest free box that holds it."""
    taken: dict[int, str] = {}
    found: Counter[str] = Counter()
    missed = []
    ordered = sorted(points, key=lambda p: _ORDER.index(_class_of(p, field)))
    for point in ordered:
        kind = _class_of(point, field)
        holding = [i for i, c in enumerate(cells) if i not in taken and _holds(c, point.x, point.y)]
        if holding:
            taken[min(holding, key=lambda i: math.hypot(cells[i].center_x - point.x, cells[i].center_y - point.y))] = kind.value
            found[kind.value] += 1
        elif kind in (CellClass.BLAST, CellClass.NORMAL):
            missed.append((field.name, point.x, point.y, point.kind))
    held = [taken.get(i) or _seen_by_eye(field.name, c) for i, c in enumerate(cells)]
    empty = tuple((field.name, round(c.center_x), round(c.center_y)) for c, what in zip(cells, held, strict=True) if what == _NOTHING)
    there = Counter(_class_of(p, field).value for p in points)
    return FieldOfPoints(field.camera, found, there, Counter(held), tuple(missed), empty)


def _class_of(point: Point, field: Field) -> CellClass:
    """Lymphoblasts near the border are lymphoblasts here: a locator finds them whether they are cut or not."""
    return CellClass.BLAST if point.kind == "lymphoblast" else point.cell_class(field)


def _holds(cell: LocatedCell, x: float, y: float) -> bool:
    return cell.x <= x <= cell.x + cell.width and cell.y <= y <= cell.y + cell.height


def _seen_by_eye(field: str, cell: LocatedCell) -> str:
    near = sorted((math.hypot(x - cell.center_x, y - cell.center_y), kind) for x, y, kind in UNMARKED.get(field, ()))
    if not near or near[0][0] > NEAR:
        return _NOTHING
    return {Kind.SMUDGED: _SMUDGED_BY_EYE, Kind.PLATELET: CellClass.NO_CELL.value}.get(near[0][1], CellClass.UNKNOWN.value)


def score_points(root: Path, locators: Mapping[int, Locate]) -> dict[str, Any]:
    """ALL-IDB1 by camera: shares of the points that boxes hold, what boxes hold, and every miss by its position."""
    fields = {f.name: f for f in read_fields(root).values() if not f.is_copy}
    points = read_points(root)
    judged = [
        match_points(locators[image.fold](image.pixels), fields[image.key], [p for p in points if p.field == image.key])
        for image in track(list(SOURCES[ALL_IDB](root)), ALL_IDB)
    ]
    return {camera: _sums([f for f in judged if f.camera == camera]) for camera in ("olympus", "canon")}


def _sums(fields: Sequence[FieldOfPoints]) -> dict[str, Any]:
    found, there, boxes = Counter[str](), Counter[str](), Counter[str]()
    for field in fields:
        found, there, boxes = found + field.found, there + field.there, boxes + field.boxes
    return {
        "found": {name: [found[name], there[name]] for name in sorted(there)},
        "boxes": dict(sorted(boxes.items())),
        "missed": [m for f in fields for m in f.missed],
        "empty": [e for f in fields for e in f.empty],
    }


def score_boxes(source: str, root: Path, locators: Mapping[int, Locate]) -> dict[str, Any]:
    """Recall and precision on boxes; nucleated cells that the annotation leaves out do not count, smudged cells are counted apart."""
    hits = truth = located = left_out = smudged = 0
    missed, extra = [], []
    for image in track(list(SOURCES[source](root)), source):
        cells = locators[image.fold](image.pixels)
        free = list(range(len(cells)))
        boxes = [m.box for m in image.marks if m.box is not None]
        for box in boxes:
            inside = next((i for i in free if box.contains(cells[i].center_x, cells[i].center_y)), None)
            if inside is None:
                missed.append((image.key, round(box.left), round(box.top)))
            else:
                free.remove(inside)
                hits += 1
        for i in free:
            what = verdict(image.key, cells[i])
            left_out += what is Verdict.UNANNOTATED
            smudged += what is Verdict.SMUDGE
            if what not in (Verdict.UNANNOTATED, Verdict.SMUDGE):
                extra.append((image.key, round(cells[i].center_x), round(cells[i].center_y)))
        truth += len(boxes)
        located += len(cells)
    return {"hits": hits, "truth": truth, "located": located, "left_out": left_out, "smudged": smudged, "missed": missed, "extra": extra}


def score_masks(root: Path, locators: Mapping[int, Locate]) -> dict[str, float]:
    """Overlap with exact masks, and errors of radius and centre as shares of the true radius."""
    rows, count = [], 0
    for image in track(list(SOURCES[WBC](root)), WBC):
        truth = image.marks[0].mask
        assert truth is not None
        count += 1
        cell = central_cell(tuple(locators[image.fold](image.pixels)), *truth.shape)
        if cell is not None:
            rows.append(_errors(truth, cell))
    errors = np.array(rows)
    return {
        "count": count,
        "not_found": count - len(rows),
        "overlap": float(errors[:, 0].sum() / count),
        "radius": float(np.median(errors[:, 1])),
        "radius_90": float(np.percentile(errors[:, 1], 90)),
        "centre": float(np.median(errors[:, 2])),
    }


def _errors(truth: Mask, cell: LocatedCell) -> tuple[float, float, float]:
    found = np.zeros_like(truth)
    if cell.mask is not None:
        found[cell.y : cell.y + cell.height, cell.x : cell.x + cell.width] = cell.mask
    radius = equivalent_radius(truth)
    rows, columns = np.nonzero(truth)
    centre = math.hypot(float(columns.mean()) - cell.center_x, float(rows.mean()) - cell.center_y) / radius
    return float((truth & found).sum() / (truth | found).sum()), abs(cell.radius / radius - 1), centre


def table(record: Mapping[str, Any]) -> Iterator[str]:
    """Markdown lines of all figures."""
    names = list(record)
    yield "| found | " + " | ".join(names) + " |"
    yield "|---" * (len(names) + 1) + "|"
    for camera in ("olympus", "canon"):
        for kind, title in (
            (CellClass.BLAST, "lymphoblasts"),
            (CellClass.NORMAL, "other nucleated cells"),
            (CellClass.UNKNOWN, "cells of unknown class"),
        ):
            yield f"| `all_idb`, {camera}, {title} | " + " | ".join(_share(*record[n][ALL_IDB][camera]["found"][kind.value]) for n in names) + " |"
        yield f"| `all_idb`, {camera}, boxes that hold no cell | " + " | ".join(_empty(record[n][ALL_IDB][camera]["boxes"]) for n in names) + " |"
        yield (
            f"| `all_idb`, {camera}, boxes of smudged cells | " + " | ".join(str(_smudged(record[n][ALL_IDB][camera]["boxes"])) for n in names) + " |"
        )
    for source in (BCCD, CHULA):
        yield f"| `{source}`, recall | " + " | ".join(_share(record[n][source]["hits"], record[n][source]["truth"]) for n in names) + " |"
        yield (
            f"| `{source}`, precision, left out cells and smudged cells not counted | "
            + " | ".join(_precision(record[n][source]) for n in names)
            + " |"
        )
    for title, part in (("recall", 0), ("precision", 1)):
        yield f"| `phantoms`, {title} | " + " | ".join(shares(pooled(record[n][PHANTOMS]))[part] for n in names) + " |"
    for key, title in (
        ("overlap", "IoU"),
        ("radius", "radius error, median"),
        ("radius_90", "radius error, 90th percentile"),
        ("centre", "centre error, median"),
    ):
        yield f"| `{WBC}`, {title} | " + " | ".join(f"{record[n][WBC][key]:.3f}" for n in names) + " |"
    yield f"| `{WBC}`, not found | " + " | ".join(_share(record[n][WBC]["not_found"], record[n][WBC]["count"]) for n in names) + " |"


def drawn_table(record: Mapping[str, Any]) -> Iterator[str]:
    """Markdown lines: recall and precision for every change of the drawn fields."""
    names = list(record)
    yield "| drawn fields, 6 each | " + " | ".join(f"{n}, recall | {n}, precision" for n in names) + " |"
    yield "|---" * (2 * len(names) + 1) + "|"
    for change in record[names[0]][PHANTOMS]:
        yield f"| {change} | " + " | ".join(part for n in names for part in shares(record[n][PHANTOMS][change])) + " |"


def figures_of(record: Path) -> dict[str, str]:
    """Figures of the locator by their titles, as the table prints them.

    Raises:
        RecipeError: there is no such record, or it says nothing of the locator.
    """
    try:
        found = {LEARNED: json.loads(record.read_text(encoding="utf-8"))[LEARNED]}
    except (OSError, ValueError, KeyError) as error:
        raise RecipeError(f"{record} holds no figures of a locator: make it by `dl4all study locators`.") from error
    rows = [line.strip("| ").split(" | ") for line in list(table(found))[2:]]
    return dict(rows)


def _share(part: int, whole: int) -> str:
    return f"{part / max(1, whole):.3f} ({part}/{whole})"


def _smudged(boxes: Mapping[str, int]) -> int:
    return boxes.get(CellClass.SMUDGED.value, 0) + boxes.get(_SMUDGED_BY_EYE, 0)


def _empty(boxes: Mapping[str, int]) -> str:
    nothing = boxes.get(_NOTHING, 0) + boxes.get(CellClass.NO_CELL.value, 0)
    return _share(nothing, sum(boxes.values()) - _smudged(boxes))


def _precision(figures: Mapping[str, int]) -> str:
    return _share(figures["hits"], figures["located"] - figures["left_out"] - figures["smudged"])


@explained
def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, keep and print the figures."""
    parser = program_parser("locators", __doc__)
    parser.add_argument("--data", type=Path, help="folder that holds all_idb, bccd_fields, chula_fields and wbc_masks")
    parser.add_argument("--run", type=Path, default=Path("build/runs/locator-folds-0"), help="run of `dl4all train locator --folds 3`")
    parser.add_argument("--record", type=Path, default=Path("docs/runs/locators.json"), help="where figures are kept")
    parser.add_argument("--print", action="store_true", dest="only_print", help="print the tables of the record and do nothing else")
    given = parser.parse_args(arguments)
    record = json.loads(given.record.read_text(encoding="utf-8")) if given.record.is_file() else {}
    if not given.only_print:
        if given.data is None:
            parser.error("--data is missing")
        for name, locators in (
            (STAIN, dict.fromkeys(range(FOLDS), located_by_stain)),
            (LEARNED, {fold: located_by(load_locator(given.run / f"fold-{fold}")) for fold in range(FOLDS)}),
        ):
            record[name] = {
                ALL_IDB: score_points(given.data / ALL_IDB, locators),
                BCCD: score_boxes(BCCD, given.data / BCCD, locators),
                CHULA: score_boxes(CHULA, given.data / CHULA, locators),
                WBC: score_masks(given.data / WBC, locators),
                PHANTOMS: sweep(locators[0]),
            }
            write_json(given.record, record)
    print("\n".join([*table(record), "", *drawn_table(record)]))


if __name__ == "__main__":
    main()
