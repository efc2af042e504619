"""What the page shows of one diagnosis, ready for its template."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image, ImageOps

from clients.cli.report.decision import DecisionStep, decision_steps, finding_of
from clients.cli.report.drawings import (
    Coordinates,
    Field,
    FocusDrawing,
    FractionBar,
    LatentMap,
    cell_state,
    draw_field,
    draw_focus,
    draw_fraction,
    draw_map,
)
from clients.cli.report.pictures import (
    fit_field,
    held_reference,
    jpeg_uri,
    open_upright,
    overlay,
    place_pictures,
    png_uri,
    register,
    registered_crop,
    surroundings,
)
from clients.cli.report.words import (
    CellState,
    FindingWords,
    ReasonWords,
    cell_reasons,
    count_words,
    finding_words,
    image_reasons,
    kind_words,
    note_words,
    patch_words,
    prediction_words,
    target_words,
)
from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all.imaging.v1 import imaging_pb2
from dl4all.retrieval.v1 import neighbour_pb2

FULL_CARDS: Final = 60
"""Cells of an image that get a card; the others get a line of a table."""

POINT_CARDS: Final = 12
"""Cells of an image whose places can be pointed at; each costs about 50 kB."""

_STATE_ORDER: Final = {state: order for order, state in enumerate(CellState)}
_USUAL_LIMIT: Final = 0.05
_PHANTOM: Final = "PHANTOM"
_NEIGHBOUR_SIDE: Final = 128


@dataclass(frozen=True)
class Point:
    """A place of a cell, in percent of its picture, and the picture of where a neighbour resembles it."""

    x: float
    y: float
    width: float
    height: float
    picture: str


@dataclass(frozen=True)
class NeighbourView:
    """A known cell that is near.

    Attributes:
        neighbour: as the service gave it.
        picture: its registered picture; empty where the very image is not held.
        query_map: the cell, where it resembles this neighbour; empty without a map.
        neighbour_map: this neighbour, where it resembles the cell; empty without a map or picture.
        query_grad_cam: the cell, where it could become more alike; empty without a map.
        points: for each place of the cell, where this neighbour resembles it; empty without maps, and for all but the first cells.
    """

    neighbour: neighbour_pb2.Neighbour
    picture: str
    query_map: str
    neighbour_map: str
    query_grad_cam: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class CellView:
    """A cell of an image.

    Attributes:
        cell: as the service gave it.
        number: its number.
        state: what is said of it.
        judged: whether it was judged.
        prediction: its prediction set in words.
        reasons: why it is indeterminate, or what is poor.
        crop: its registered picture; empty where absent.
        surroundings: the cell within the image; empty where absent.
        ring: centre and radius of the cell in ``surroundings``.
        for_blast: the cell, where it speaks for a blast; empty where the release does not say.
        for_normal: the cell, where it speaks for a normal cell, on the same scale; empty likewise.
        neighbours: the nearest known cells.
        map_point: its point in the latent map.
        neighbour_points: points of the neighbours in the latent map.
    """

    cell: diagnosis_pb2.CellDiagnosis
    number: int
    state: CellState
    judged: bool
    prediction: str
    reasons: tuple[ReasonWords, ...]
    crop: str
    surroundings: str
    ring: tuple[float, float, float] | None
    for_blast: str
    for_normal: str
    neighbours: tuple[NeighbourView, ...]
    map_point: Coordinates | None
    neighbour_points: tuple[Coordinates, ...]


@dataclass(frozen=True)
class DiagnosisView:
    """A diagnosis.

    Attributes:
        diagnosis: as the service gave it.
        finding: its finding in words.
        target: what its release detects.
        kind: what the image was taken for.
        counts: how many cells were counted as what, in words.
        patches: how many patches show what, in words; empty where none were judged.
        reasons: reasons of finding and review.
        notes: notes on the quality of the image.
        phantom: whether the image is a drawing.
        picture_note: why the picture is not shown; empty where it is.
        focus: where the image is blurred; None where that is not known.
        field: the image with its marks.
        bar: the blast fraction.
        steps: the way to the finding.
        explained: whether these steps lead to the finding that was given.
        cards: the cells in full.
        rows: the other cells.
        latent: the latent map; None where it was not sent.
    """

    diagnosis: diagnosis_pb2.Diagnosis
    finding: FindingWords
    target: str
    kind: str
    counts: str
    patches: str
    reasons: tuple[ReasonWords, ...]
    notes: tuple[ReasonWords, ...]
    phantom: bool
    picture_note: str
    focus: FocusDrawing | None
    field: Field
    bar: FractionBar
    steps: tuple[DecisionStep, ...]
    explained: bool
    cards: tuple[CellView, ...]
    rows: tuple[CellView, ...]
    latent: LatentMap | None


@dataclass(frozen=True)
class _Sources:
    image: Image.Image | None
    references: Path | None


def view_diagnosis(encoded: bytes, diagnosis: diagnosis_pb2.Diagnosis, references: Path | None, picture_note: str = "") -> DiagnosisView:
    """Prepare a diagnosis for the page.

    Args:
        encoded: the encoded image.
        diagnosis: its diagnosis.
        references: folder of reference images; None where there is none.
        picture_note: why the image is not shown, where that is known beforehand.
    """
    image, picture_note = (None, picture_note) if picture_note else _judged_image(encoded, diagnosis)
    cells = sorted(diagnosis.cells, key=lambda cell: (_STATE_ORDER[cell_state(cell)], cell.cell.cell_id))
    latent, known, own = draw_map(diagnosis.latent_map, cells)
    sources = _Sources(image, references)
    views = [_view_cell(cell, sources, known, own, full=order < FULL_CARDS, with_points=order < POINT_CARDS) for order, cell in enumerate(cells)]
    detects = diagnosis.provenance.detects
    steps = decision_steps(diagnosis)
    return DiagnosisView(
        diagnosis=diagnosis,
        finding=finding_words(diagnosis.finding, detects),
        target=target_words(detects),
        kind=kind_words(diagnosis.kind),
        counts=count_words(diagnosis.counts),
        patches=patch_words(diagnosis.patches),
        reasons=image_reasons(diagnosis.reasons),
        notes=note_words(diagnosis.quality.notes),
        phantom=_PHANTOM in diagnosis.reasons or _PHANTOM in diagnosis.quality.notes,
        picture_note=picture_note,
        focus=draw_focus(diagnosis.quality),
        field=_field(image, diagnosis),
        bar=draw_fraction(diagnosis.blast_fraction.lower, diagnosis.blast_fraction.upper, diagnosis.rule.max_fraction_for_negative or _USUAL_LIMIT),
        steps=steps,
        explained=not steps or finding_of(steps) == diagnosis.finding,
        cards=tuple(views[:FULL_CARDS]),
        rows=tuple(views[FULL_CARDS:]),
        latent=latent if diagnosis.latent_map else None,
    )


def _judged_image(encoded: bytes, diagnosis: diagnosis_pb2.Diagnosis) -> tuple[Image.Image | None, str]:
    judged = diagnosis.provenance.image_sha256
    if judged and hashlib.sha256(encoded).hexdigest() != judged.lower():
        return None, "The picture at hand is not the image that was judged (its SHA-256 differs); it is not shown."
    image = open_upright(encoded)
    if image is None:
        return None, "The picture could not be opened; only the positions of the cells are shown."
    size = (diagnosis.quality.width, diagnosis.quality.height)
    if all(size) and image.size != size:
        return None, "The picture has another size than the image that was judged; it is not shown."
    return image, ""


def _field(image: Image.Image | None, diagnosis: diagnosis_pb2.Diagnosis) -> Field:
    if image is None:
        size = (diagnosis.quality.width or 640, diagnosis.quality.height or 480)
        return draw_field("", size, size, diagnosis.cells, diagnosis.patches)
    shown = fit_field(image)
    return draw_field(jpeg_uri(shown), shown.size, image.size, diagnosis.cells, diagnosis.patches)


def _view_cell(
    cell: diagnosis_pb2.CellDiagnosis, sources: _Sources, known: dict[str, Coordinates], own: dict[int, Coordinates], *, full: bool, with_points: bool
) -> CellView:
    judged = math.isfinite(cell.blast_probability)
    crop = registered_crop(cell.registered_pixels, cell.registered_side) if full else None
    cut = surroundings(sources.image, cell.cell) if full and sources.image else None
    return CellView(
        cell=cell,
        number=cell.cell.cell_id,
        state=cell_state(cell),
        judged=judged,
        prediction=prediction_words(cell.prediction_set, judged),
        reasons=cell_reasons(cell.reasons),
        crop=png_uri(crop) if crop else "",
        surroundings=jpeg_uri(cut[0]) if cut else "",
        ring=cut[1] if cut else None,
        for_blast=_overlay_uri(crop, cell.class_activation.for_blast),
        for_normal=_overlay_uri(crop, cell.class_activation.for_normal),
        neighbours=tuple(_view_neighbour(neighbour, crop, sources.references, with_points=with_points) for neighbour in cell.neighbours)
        if full
        else (),
        map_point=own.get(cell.cell.cell_id),
        neighbour_points=tuple(known[n.reference_id] for n in cell.neighbours if n.reference_id in known),
    )


def _view_neighbour(neighbour: neighbour_pb2.Neighbour, crop: Image.Image | None, references: Path | None, *, with_points: bool) -> NeighbourView:
    held = held_reference(references, neighbour)
    side = crop.width if crop else _NEIGHBOUR_SIDE
    square = register(held, neighbour.center_x, neighbour.center_y, neighbour.radius, side) if held else None
    shown = square or (ImageOps.pad(held, (side, side), color="white") if held else None)
    return NeighbourView(
        neighbour=neighbour,
        picture=jpeg_uri(shown) if shown else "",
        query_map=_overlay_uri(crop, neighbour.query_map),
        neighbour_map=_overlay_uri(square, neighbour.neighbour_map),
        query_grad_cam=_overlay_uri(crop, neighbour.query_grad_cam),
        points=_points(neighbour.place_similarities) if with_points and crop else (),
    )


def _points(similarities: neighbour_pb2.PlaceSimilarities) -> tuple[Point, ...]:
    columns, rows = similarities.map.width, similarities.map.height
    width, height = 100.0 / max(1, columns), 100.0 / max(1, rows)
    return tuple(
        Point(number % columns * width, number // columns * height, width, height, picture)
        for number, picture in enumerate(place_pictures(similarities))
    )


def _overlay_uri(picture: Image.Image | None, heatmap: imaging_pb2.SpatialMap) -> str:
    mapped = overlay(picture, heatmap) if picture else None
    return jpeg_uri(mapped) if mapped else ""
