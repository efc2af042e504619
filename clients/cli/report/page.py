"""The report: one self-contained HTML page on the diagnoses of one or more images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Final

import jinja2

from clients.cli.report.drawings import MAP_SIDE
from clients.cli.report.pictures import colour_scale
from clients.cli.report.view import FULL_CARDS, DiagnosisView, view_diagnosis
from clients.cli.report.words import STATE_WORDS, CellState, number, percent, target_words
from dl4all.diagnosis.v1 import diagnosis_pb2
from services.common.image_files import shown, shown_text

_FOLDER: Final = Path(__file__).parent
_MAX_MAP_LABELS: Final = 30
"""Cells of an image up to which a latent map shows their numbers."""


@dataclass(frozen=True)
class ReportItem:
    """An image of the report.

    Attributes:
        path: where the image came from, as the reader should see it.
        image: the encoded image.
        diagnosis: its diagnosis; None where there is none.
        error: why there is none; empty where there is one.
        picture_note: why the image is not shown, where that is known beforehand; empty where it is to be shown.
    """

    path: str
    image: bytes
    diagnosis: diagnosis_pb2.Diagnosis | None
    error: str
    picture_note: str = ""


@dataclass(frozen=True)
class _Section:
    anchor: str
    name: str
    path: str
    error: str
    view: DiagnosisView | None


def render_report(
    items: Sequence[ReportItem],
    *,
    references: Path | None = None,
    system: diagnosis_pb2.Release | None = None,
    created: datetime | None = None,
) -> str:
    """Render the report of one or more images.

    Args:
        items: the images with their diagnoses.
        references: folder of reference images; a known cell is shown only if this folder holds that very file.
        system: the release that judged the images, for its figures and limits.
        created: when the report was made; now if absent.

    Returns:
        One HTML page that needs no other file.
    """
    sections = [_section(number, item, references) for number, item in enumerate(items, start=1)]
    return _template().render(
        sections=sections,
        system=system,
        created=_date_words(created or datetime.now(UTC)),
        phantoms=sum(section.view is not None and section.view.phantom for section in sections),
        css=(_FOLDER / "report.css").read_text(encoding="utf-8"),
        colour_scale=colour_scale(),
    )


def write_report(path: Path, page: str) -> None:
    """Write a rendered report; the file appears whole or not at all."""
    from training.files.whole_files import write_whole

    content = page.encode("utf-8", "replace")
    if path.exists() and not path.is_file():  # a pipe or a device
        path.write_bytes(content)
    else:
        write_whole(path.resolve(), content)


def _section(number: int, item: ReportItem, references: Path | None) -> _Section:
    view = view_diagnosis(item.image, item.diagnosis, references, item.picture_note) if item.diagnosis is not None else None
    path = shown(item.path)
    name = PurePath(path.replace("\\", "/")).name or path or f"Image {number}"
    error = item.error or ("" if view else "No diagnosis was received.")
    return _Section(f"image-{number}", name, path, shown_text(error), view)


def _date_words(created: datetime) -> str:
    return f"{created:%Y-%m-%d %H:%M} {created.tzname() or ''}".rstrip()


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, number=number, target=target_words)
    environment.globals.update(states=STATE_WORDS, CellState=CellState, map_side=MAP_SIDE, full_cards=FULL_CARDS, max_labels=_MAX_MAP_LABELS)
    return environment.get_template("report.html.j2")
