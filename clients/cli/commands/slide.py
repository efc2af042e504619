"""``dl4all slide``: diagnose whole slides, with progress, a table of all cells and a report."""

from __future__ import annotations

import csv
import stat
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from clients.cli.forms import slide_cell_row, slide_form
from clients.cli.images import refuse_overwriting
from clients.cli.options import Address, ReleaseOption
from clients.cli.report.page import ReportItem, render_report, write_report
from clients.cli.report.words import note_words
from clients.cli.running import asyncio_exit, console, in_a_folder, print_json, say
from clients.common.opening import find_release, open_client
from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all.imaging.v1 import imaging_pb2
from dl4all_client import ServiceError, SlideOptions, finding_name
from services.common.image_files import shown

COLUMNS: Final = ("cell_id", "center_x", "center_y", "radius", "blast_probability", "suspected", "indeterminate", "reasons", "focus_after")
_COLOURS: Final = {"BLASTS_SUSPECTED": "red", "NO_BLASTS_SEEN": "green"}


def slide(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="SLIDE",
            help="A file on disk: tiled TIFF, BigTIFF, SVS or DICOM; with --on-server, also a folder with the DICOM files of one slide.",
            show_default=False,
        ),
    ],
    release: ReleaseOption = "",
    address: Address = None,
    on_server: Annotated[
        bool, typer.Option("--on-server", help="SLIDE is a path below the slide root of the server (DL4ALL_PATCHING_SLIDES_ROOT).")
    ] = False,
    microns_per_pixel: Annotated[float, typer.Option(help="Micrometres per pixel; 0: the file's, else by the red cells.")] = 0.0,
    cells: Annotated[
        Path | None, typer.Option(help="Write every cell to this CSV file as it is judged.", show_default=False, callback=in_a_folder)
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            help="Write an HTML report: where the suspected cells lie, and the most suspicious ones.", show_default=False, callback=in_a_folder
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, nothing else there.")] = False,
) -> None:
    """Diagnose a whole slide window by window; it is never held in memory. Ctrl-C stops it, on the server as well.

    Example: `dl4all phantom --slide 4096 --out slide.tif`, then `dl4all slide slide.tif --report slide.html`.
    """
    if not on_server:
        refuse_overwriting([path for path in (cells, report) if path is not None], [file])
    asyncio_exit(_diagnose(file, release, address, on_server, microns_per_pixel, cells, report, as_json))


async def _diagnose(
    file: Path, release: str, address: str | None, on_server: bool, scale: float, cells: Path | None, report: Path | None, as_json: bool
) -> int:
    options: SlideOptions = {"release": release, "microns_per_pixel": scale, "explain": report is not None}
    diagnosis = diagnosis_pb2.SlideDiagnosis()
    async with AsyncExitStack() as stack:
        sent = 0 if on_server else _size_of(file)
        client = await stack.enter_async_context(open_client(address))
        table = None if cells is None else csv.writer(stack.enter_context(cells.open("w", encoding="utf-8", newline="")))
        if table is not None:
            table.writerow(COLUMNS)
        bar = stack.enter_context(_bar())
        tasks = [bar.add_task("sending", total=sent or None), bar.add_task("searching", total=None)]
        async for part in client.diagnose_slide(file, on_server=on_server, **options):
            match part.WhichOneof("part"):
                case "progress":
                    _show_progress(bar, tasks, part.progress)
                case "cells":
                    if table is not None:
                        table.writerows(slide_cell_row(cell) for cell in part.cells.cells)
                case _:
                    diagnosis = part.slide
        _show(file, diagnosis, as_json)
        if report is not None:
            system = await find_release(client, diagnosis.provenance.release)
            write_report(report, render_report([_report_item(file, diagnosis)], system=system))
            say(f"Report: {shown(report)}")
    return 0


def _size_of(file: Path) -> int:
    """Bytes of a file that can be uploaded.

    Raises:
        ServiceError: it is a folder, a pipe or a device, or it is empty.
        OSError: there is none.
    """
    facts = file.stat()
    if stat.S_ISDIR(facts.st_mode):
        raise ServiceError(
            "INVALID_ARGUMENT",
            "FILE_UNREADABLE",
            f"{shown(file)} is a folder, and only a file is uploaded. Give one file; or put the folder below the slide root of the server "
            "(DL4ALL_PATCHING_SLIDES_ROOT), and name it relative to that with --on-server.",
        )
    if not stat.S_ISREG(facts.st_mode):
        raise ServiceError(
            "INVALID_ARGUMENT",
            "FILE_UNREADABLE",
            f"{shown(file)} is a pipe or a device. A slide must be a file or a folder on disk; save it to a file first.",
        )
    if facts.st_size == 0:
        raise ServiceError("INVALID_ARGUMENT", "FILE_UNREADABLE", f"{shown(file)} is empty: it has 0 bytes. Was it copied whole?")
    return facts.st_size


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _show_progress(bar: Progress, tasks: list[TaskID], progress: diagnosis_pb2.DiagnoseSlideProgress) -> None:
    sending, searching = tasks
    bar.update(sending, completed=progress.bytes_received)
    words = f"searching, {progress.cells_judged} of {progress.cells_found} cells judged"
    bar.update(searching, completed=progress.windows_done, total=progress.windows or None, description=words)


def _show(file: Path, slide: diagnosis_pb2.SlideDiagnosis, as_json: bool) -> None:
    if as_json:
        print_json(slide_form(str(file), slide))
        return
    counts, fraction, finding = slide.counts, slide.blast_fraction, finding_name(slide.finding)
    say(f"{finding} {shown(file)}", _COLOURS.get(finding, "yellow"))
    say(
        f"  {slide.facts.width} x {slide.facts.height} px; {counts.total} nucleated cells: {counts.suspected} suspected, "
        f"{counts.indeterminate} indeterminate, {counts.not_suspected} not suspected; blast fraction {fraction.lower:.1%} to {fraction.upper:.1%}"
    )
    say(f"  {'review required; ' if slide.requires_review else ''}{', '.join(slide.reasons)}")
    for note in note_words(slide.facts.notes):
        say(f"  {note.code}: {note.sentence}" if note.sentence else f"  {note.code}")


def _report_item(file: Path, slide: diagnosis_pb2.SlideDiagnosis) -> ReportItem:
    """The slide as an image of the report: counted whole, its most suspicious cells shown."""
    diagnosis = diagnosis_pb2.Diagnosis(
        request_id=slide.request_id,
        finding=slide.finding,
        requires_review=slide.requires_review,
        reasons=slide.reasons,
        counts=slide.counts,
        blast_fraction=slide.blast_fraction,
        quality=slide.quality,
        kind=imaging_pb2.ImageKind.IMAGE_KIND_FIELD,
        cells=slide.explained,
        latent_map=slide.latent_map,
        rule=slide.rule,
        provenance=slide.provenance,
        timings=slide.timings,
    )
    note = f"A whole slide is not shown; marked are its {len(slide.explained)} most suspicious of {slide.counts.total} cells."
    return ReportItem(str(file), b"", diagnosis, "", note)
