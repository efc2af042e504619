"""``dl4all study``: the programs that measure releases, compare runs and draw what the documentation shows."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, NamedTuple

import typer

from clients.cli.options import explained


class Program(NamedTuple):
    """A program of ``training``: its name on the command line, its module, and one sentence."""

    name: str
    module: str
    sentence: str


PROGRAMS: Final = (
    Program("comparison", "training.evaluation.comparison", "Compare cross-validated runs on the same patients, with paired intervals."),
    Program("all-idb", "training.evaluation.all_idb.main", "Repeat the papers' experiments on ALL-IDB, and measure what they are worth."),
    Program(
        "locators", "training.evaluation.locators", "Compare how cells are found: by the stain alone, and by locators that have not seen the fields."
    ),
    Program(
        "locator-releases", "training.evaluation.locator_releases", "Measure the releases on cells that a locator finds, beside those by the stain."
    ),
    Program("locator-speed", "training.evaluation.locator_speed", "Measure the CPU time of location, by the stain and by a locator."),
    Program("keep-run", "training.evaluation.keep_run", "Keep the results of a cross-validated run, without names or labels, in one small file."),
    Program("sharpening", "training.evaluation.sharpening", "Compare runs on sharpened crops with runs on the same crops unsharpened."),
    Program("decision", "training.evaluation.decision", "Measure releases on cells that they have not seen: AUC, coverage, abstentions."),
    Program("false-reassurance", "training.evaluation.reassurance", "Measure what a release says of specimens with a known share of blasts."),
    Program("faithfulness", "training.evaluation.faithfulness", "Measure whether the similarity maps of a release are faithful."),
    Program("latent-map", "training.evaluation.latent_map", "Measure how far the latent map of a release can be trusted."),
    Program("library-growth", "training.evaluation.growth", "Measure what confirmed cells of a new source bring to a library."),
    Program("patch-fields", "training.evaluation.patch_fields", "Measure what a network of patches says of whole fields."),
    Program("stress", "training.evaluation.stress", "Diagnose small fields of another hospital. This tests robustness only."),
    Program("other-sources", "training.evaluation.sources", "Sum up, by folder, the answers of `dl4all diagnose --json` on standard input."),
    Program("location", "training.evaluation.location", "Measure how well nucleated cells are located."),
    Program("location-pictures", "training.evaluation.location_pictures", "Draw what location finds, and where it fails."),
    Program("image-quality", "training.evaluation.image_quality", "Measure blur, exposure and cover of whole fields."),
    Program("obstructions", "training.evaluation.obstructions", "Measure what margins, ink and the circle of an eyepiece do to the cells."),
    Program("red-cells", "training.evaluation.red_cells", "Measure how large the red cells of training crops are."),
    Program("network-costs", "training.evaluation.network_costs", "Measure what networks cost: parameters, operations, file, CPU milliseconds."),
    Program("confounders", "training.evaluation.confounders", "Measure what colours, the border and the focus alone tell of the classes."),
    Program("patient-split", "training.datasets.patients", "Check the one list of patients: who trains, who calibrates, who tests."),
    Program("threshold-tuning", "training.crops.threshold_tuning", "Choose the focus threshold of adaptive unsharpening on training patients."),
    Program("unsharpening-figure", "training.evaluation.unsharpening_figure", "Draw how adaptive unsharpening treats one cell."),
    Program("class-activations", "training.releases.add_class_activations", "Let an exported cell network give class activations as well."),
)
"""All programs, in the order of the help."""

# A program reads its arguments itself, `--help` among them.
_AS_GIVEN: Final[dict[str, Any]] = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}

study_app = typer.Typer(no_args_is_help=True, help="Studies: compare runs, measure releases, draw the figures of the documentation.")


def _started(program: Program) -> Callable[[typer.Context], None]:
    """The command of a program; its module is imported only when it is called."""

    def start(context: typer.Context) -> None:
        if "" in context.args:
            raise typer.BadParameter("an argument is empty; a path . is the folder where you are.")
        with explained():
            status = import_module(program.module).main(context.args)
        raise typer.Exit(status or 0)

    return start


for _program in PROGRAMS:
    study_app.command(
        _program.name,
        help=_program.sentence,
        add_help_option=False,
        context_settings=_AS_GIVEN,
    )(_started(_program))
