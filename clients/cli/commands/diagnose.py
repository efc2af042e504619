"""Commands that look at images: diagnose, cells, focus, enhance."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clients.cli.forms import cells_form, diagnosis_form, enhance_form
from clients.cli.images import distinct_names, expand, refuse_overwriting
from clients.cli.options import Address, AsJson, Images, Kind, KindOption, ReleaseOption
from clients.cli.pictures import write_comparison
from clients.cli.report.page import ReportItem, render_report, write_report
from clients.cli.running import Outcome, asyncio_exit, for_each_image, in_a_folder, print_json, say, show_error
from clients.common.opening import find_release, open_client
from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all_client import finding_name
from services.common.image_files import shown


def diagnose(
    images: Images,
    kind: KindOption = Kind.AUTO,
    release: ReleaseOption = "",
    address: Address = None,
    as_json: AsJson = False,
    report: Annotated[
        Path | None, typer.Option(help="Write a self-contained HTML report to this file.", show_default=False, callback=in_a_folder)
    ] = None,
    references: Annotated[
        Path | None,
        typer.Option(
            help="Folder where your laboratory holds the reference images; without it the report shows no pictures of neighbours.",
            envvar="DL4ALL_REFERENCE_IMAGES",
            show_default=False,
        ),
    ] = None,
    microns_per_pixel: Annotated[float, typer.Option(help="Micrometres per pixel, 0 where unknown.")] = 0.0,
) -> None:
    """Diagnose images: find the nucleated cells, judge each, and give the finding with its reasons.

    Exit status 1 if any image failed; the other images are still answered.
    """
    paths = expand(images)
    refuse_overwriting([report] if report is not None else [], paths)
    asyncio_exit(_diagnose(paths, kind, release, address, as_json, report, references, microns_per_pixel))


def focus(images: Images, address: Address = None, as_json: AsJson = False) -> None:
    """Score the focus of images as they are (FQPath; higher is blurrier; only compare images of one size)."""
    asyncio_exit(_focus(expand(images), address, as_json))


def enhance(
    images: Images,
    out: Annotated[Path | None, typer.Option(help="Folder for pictures: registered cell before and after, side by side.", show_default=False)] = None,
    release: ReleaseOption = "",
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Register the cell of each image (the one nearest the centre) and sharpen it as far as its focus needs."""
    asyncio_exit(_enhance(expand(images), out, release, address, as_json))


def cells(images: Images, kind: KindOption = Kind.AUTO, address: Address = None, as_json: AsJson = False) -> None:
    """Locate the nucleated cells of images."""
    asyncio_exit(_cells(expand(images), kind, address, as_json))


async def _diagnose(
    paths: list[Path], kind: Kind, release: str, address: str | None, as_json: bool, report: Path | None, references: Path | None, scale: float
) -> int:
    items: list[ReportItem] = []
    async with open_client(address) as client:

        async def work(_: Path, image: bytes) -> tuple[bytes, diagnosis_pb2.Diagnosis]:
            explain = report is not None
            return image, await client.diagnose(image, kind=kind.value, release=release, microns_per_pixel=scale, explain=explain)

        def done(outcome: Outcome[tuple[bytes, diagnosis_pb2.Diagnosis]]) -> None:
            show_error(outcome, as_json)
            image, diagnosis = outcome.answer or (b"", None)
            if diagnosis is not None:
                _show_diagnosis(outcome.path, diagnosis, as_json)
            if report is not None:
                items.append(ReportItem(str(outcome.path), image, diagnosis, "" if outcome.error is None else str(outcome.error)))

        failures = await for_each_image(paths, work, "diagnosing", done)
        if report is not None:
            used = next((i.diagnosis.provenance.release for i in items if i.diagnosis is not None), None)
            system = None if used is None else await find_release(client, used)
            write_report(report, render_report(items, references=references, system=system))
            say(f"Report: {shown(report)}")
    return failures


def _show_diagnosis(path: Path, diagnosis: diagnosis_pb2.Diagnosis, as_json: bool) -> None:
    if as_json:
        print_json(diagnosis_form(str(path), diagnosis))
        return
    counts, fraction = diagnosis.counts, diagnosis.blast_fraction
    finding = finding_name(diagnosis.finding)
    colour = {"BLASTS_SUSPECTED": "red", "NO_BLASTS_SEEN": "green"}.get(finding, "yellow")
    say(f"{finding} {shown(path)}", colour)
    say(
        f"  {counts.total} nucleated cells: {counts.suspected} suspected, {counts.indeterminate} indeterminate, "
        f"{counts.not_suspected} not suspected; blast fraction {fraction.lower:.0%} to {fraction.upper:.0%}"
    )
    say(f"  {'review required; ' if diagnosis.requires_review else ''}{', '.join(diagnosis.reasons)}")


async def _focus(paths: list[Path], address: str | None, as_json: bool) -> int:
    async with open_client(address) as client:

        async def work(_: Path, image: bytes) -> float:
            return await client.measure_focus(image)

        def done(outcome: Outcome[float]) -> None:
            show_error(outcome, as_json)
            if outcome.answer is not None and as_json:
                print_json({"path": str(outcome.path), "score": round(outcome.answer, 6)})
            elif outcome.answer is not None:
                typer.echo(f"{outcome.answer:9.4f}  {shown(outcome.path)}")

        return await for_each_image(paths, work, "scoring", done)


async def _enhance(paths: list[Path], out: Path | None, release: str, address: str | None, as_json: bool) -> int:
    names = distinct_names(paths, out or Path())
    if out is not None:
        refuse_overwriting(names.values(), paths)
        out.mkdir(parents=True, exist_ok=True)
    async with open_client(address) as client:

        async def work(path: Path, image: bytes) -> diagnosis_pb2.EnhanceCellResponse:
            answer = await client.enhance_cell(image, release=release, include_crop=out is not None)
            if out is not None:
                write_comparison(names[path], answer.crop, answer.enhanced)
            return answer

        def done(outcome: Outcome[diagnosis_pb2.EnhanceCellResponse]) -> None:
            show_error(outcome, as_json)
            if outcome.answer is None:
                return
            form = enhance_form(str(outcome.path), outcome.answer.enhanced)
            if as_json:
                print_json(form)
                return
            reasons = ", ".join(form["reasons"]) or "good"
            typer.echo(
                f"{form['focus_before']:.3f} -> {form['focus_after']:.3f}  radius {form['unsharp_radius']:2d}  {reasons}  {shown(outcome.path)}"
            )

        return await for_each_image(paths, work, "enhancing", done)


async def _cells(paths: list[Path], kind: Kind, address: str | None, as_json: bool) -> int:
    async with open_client(address) as client:

        async def work(_: Path, image: bytes) -> diagnosis_pb2.LocateCellsResponse:
            return await client.locate_cells(image, kind=kind.value)

        def done(outcome: Outcome[diagnosis_pb2.LocateCellsResponse]) -> None:
            show_error(outcome, as_json)
            if outcome.answer is None:
                return
            if as_json:
                print_json(cells_form(str(outcome.path), outcome.answer))
            else:
                typer.echo(f"{len(outcome.answer.cells):4d} cells  {shown(outcome.path)}")

        return await for_each_image(paths, work, "locating", done)
