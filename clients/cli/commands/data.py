"""``dl4all data``: make data sets and packs of crops."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from clients.cli.options import BUILD, explained
from clients.cli.running import say

data_app = typer.Typer(no_args_is_help=True, help="Make data sets and packs of crops that training takes.")


@data_app.command("pack")
def pack(
    dataset: Annotated[Path, typer.Argument(help="Folder of one data set.")],
    out: Annotated[Path, typer.Option(help="File to write, ending in .pack.")],
    side: Annotated[int, typer.Option(help="Side of the crops in px.", min=32, max=1024)] = 128,
    kind: Annotated[str, typer.Option("--input", help="registered_sharpened or registered (cells), or center_crop.")] = "",
    crop: Annotated[int, typer.Option("--center-crop", help="Side of the middle that is cut out, px; 0 for the whole image.", min=0)] = 0,
    quality: Annotated[int, typer.Option(help="JPEG quality 1..100 of the stored crops; 0 keeps every pixel as it is.", min=0, max=100)] = 92,
    level: Annotated[str, typer.Option(help="Level of ADP: 1, 2, 3, or all.")] = "1",
    subject: Annotated[
        str, typer.Option(help="What crops show: cell, the cell of each image; or nothing, a spot of it without a nucleated cell.")
    ] = "cell",
    threshold: Annotated[str, typer.Option(help="How the focus threshold is chosen: quantile, tuned or tuned_legacy.")] = "quantile",
    focus_from: Annotated[Path | None, typer.Option(help="Pack whose focus parameters are taken over.", show_default=False)] = None,
    cache: Annotated[Path, typer.Option(help="Folder where prepared crops are kept.")] = BUILD / "packs",
) -> None:
    """Put the crops of a data set with labels and groups into one small file. A GPU machine needs only this file.

    JPEG changes the pixels a little. A release is built from the very crops that its network was trained on, and says so where they were compressed.
    """
    with explained():
        from services.common.cell_classes import NOTHING
        from training.crops.packs import SUFFIX, read_pack, write_pack
        from training.crops.sources import Sources, focus_of
        from training.datasets.dataset import ImageKind
        from training.datasets.tissue import ALL_LEVELS, Level
        from training.errors import RecipeError
        from training.recipes.config import Input, InputKind, Threshold

        if out.suffix != SUFFIX:
            raise RecipeError(f"The name of a pack ends in {SUFFIX}: {out.with_suffix(SUFFIX)}.")
        sources = Sources.find([dataset], cache)
        if len(sources.names) != 1:
            raise RecipeError(f"{dataset} holds several data sets: {', '.join(sources.names)}; name one.")
        (name,) = sources.names
        if level not in ("1", "2", "3", ALL_LEVELS):
            raise RecipeError(f"A level of ADP is 1, 2, 3 or all, not {level!r}.")
        if subject not in ("cell", NOTHING):
            raise RecipeError(f"Crops show a cell or nothing, not {subject!r}.")
        taxonomy = cast(Level, level if level == ALL_LEVELS else int(level))
        is_cell = sources.dataset(name, taxonomy).kind is ImageKind.CELL
        try:
            wanted = InputKind(kind or ("registered_sharpened" if is_cell and not crop else "center_crop"))
        except ValueError as error:
            raise RecipeError(f"An input is one of {', '.join(InputKind)}, not {kind!r}.") from error
        taken_over = read_pack(focus_from) if focus_from else None
        focus = focus_of(taken_over) if taken_over else None
        if threshold not in get_args(Threshold):
            raise RecipeError(f"A threshold is one of {', '.join(get_args(Threshold))}, not {threshold!r}.")
        crops = Input.model_validate({"kind": wanted, "side": side, "center_crop": crop, "subject": subject, "threshold": threshold})
        made = sources.pack(name, crops, taxonomy, focus)
        if taken_over is not None:
            made = replace(made, header=replace(made.header, threshold=taken_over.header.threshold))
        write_pack(made, out, quality)
        say(f"{out}: {len(made)} crops at {side} px, {out.stat().st_size / 2**20:.1f} MiB; {len(made.header.left_out)} images left out", "green")


@data_app.command("patches")
def patches(
    fields: Annotated[Path, typer.Argument(metavar="ALL_IDB1", help="Folder with im/, and xyc/ with other/, or merged/.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder for patches/ and the table.")],
    flush: Annotated[bool, typer.Option("--flush", help="Cover the right and bottom border as well; not in the published data.")] = False,
    legacy_drop_first: Annotated[
        bool, typer.Option("--legacy-drop-first", help="Drop the first point of every file in other/, as the published program does.")
    ] = False,
) -> None:
    """Cut the fields of ALL-IDB1 into ALL-IDB Patches: 256 px, a quarter overlap, two independent labels per patch.

    Example: `dl4all data patches ALL_IDB1 all_idb_patches`; the result is a data set for `dl4all train`.
    """
    with explained():
        from training.datasets.all_idb_patches import write_patches

        written = write_patches(fields, out, flush=flush, legacy_drop_first=legacy_drop_first)
        say(
            f"{out}: {written.patches} patches; lymphoblasts in {written.lymphoblasts}, other cells in {written.others}, "
            f"both in {written.both}, neither in {written.neither}",
            "green",
        )


@data_app.command("all-idb")
def all_idb(
    fields: Annotated[Path, typer.Argument(metavar="FIELDS", help="Folder with ALL_IDB1/im/, fields.csv, points.csv, kinds.csv, all_idb2.csv.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder for all_idb_cells/ and ALL_IDB2/.")],
) -> None:
    """Cut single cells out of the fields of ALL-IDB1: windows around the experts' points, and the crops of ALL-IDB2.

    Both are data sets for `dl4all train`, grouped by imaging session and block of fields. Crops of ALL-IDB2 of fields that are kept back train,
    calibrate and test nothing; only the papers' protocols, which split by image, see them.

    Example: `dl4all data all-idb all_idb cut`, then `dl4all train plain_resnet --data cut --target all_idb_cells`.
    """
    with explained():
        from training.datasets.all_idb_cells import write_both

        cells, crops = write_both(fields, out)
        blasts, normals = (sum(i.is_blast == label for i in cells.images) for label in (1, 0))
        neither = len(cells.images) - blasts - normals
        say(f"{out}: {blasts} blasts, {normals} normal cells, {neither} of neither class; {len(crops.images)} crops of ALL-IDB2", "green")


@data_app.command("compose")
def compose(
    cells: Annotated[Path, typer.Argument(metavar="CELLS", help="Folder of a data set of single cells with patients.")],
    out: Annotated[Path, typer.Option(help="File to write, ending in .pack.")],
    fields: Annotated[int, typer.Option(help="Fields per training patient.", min=1, max=1000)] = 12,
    judged_fields: Annotated[int, typer.Option(help="Fields per calibration or test patient.", min=1, max=1000)] = 8,
    side: Annotated[int, typer.Option(help="Side of the stored patches in px.", min=32, max=1024)] = 128,
    seed: Annotated[int, typer.Option(help="Seed of the layout of the cells.", min=0)] = 0,
    cache: Annotated[Path, typer.Option(help="Folder where prepared crops are kept.")] = BUILD / "packs",
) -> None:
    """Compose fields of single cells, each field of one patient, and cut them into labelled patches.

    Example: `dl4all data compose aml_cells --out composed.pack`, then `dl4all train all_idb_patches --data composed.pack`.
    """
    with explained():
        from training.crops.composition import Composition, compose_pack
        from training.crops.packs import SUFFIX, write_pack
        from training.crops.sources import Sources
        from training.errors import RecipeError

        if out.suffix != SUFFIX:
            raise RecipeError(f"The name of a pack ends in {SUFFIX}: {out.with_suffix(SUFFIX)}.")
        sources = Sources.find([cells], cache)
        if len(sources.names) != 1:
            raise RecipeError(f"{cells} holds several data sets: {', '.join(sources.names)}; name one.")
        made = compose_pack(sources.dataset(sources.names[0]), Composition(fields, judged_fields, seed=seed), side)
        write_pack(made, out)
        shares = ", ".join(f"{name} in {share:.1%}" for name, share in zip(made.header.classes, made.labels.mean(axis=0), strict=True))
        say(f"{out}: {len(made)} patches; {shares}; {len(made.header.left_out)} patients gave no field", "green")
