"""The papers' experiments on ALL-IDB, and what they are worth: one table, row by row.

    dl4all study all-idb --data DATA                      every row in its short form; stop it at any time, the same command goes on
    dl4all study all-idb --data DATA --only s3-allnet-adp s6-dss
    dl4all study all-idb --data DATA --full               the protocols as published: not tried, days on two cores
    dl4all study all-idb --print                          the tables of the record, without any data

DATA holds all_idb/ (fields with tables), lc25000_tiles/, aml_cells/ and allnet_adp_checkpoints/. Crops, windows and patches are cut into CACHE once.
A row that is finished is neither trained nor measured again, except that a full form takes the place of a short one; delete its entry in RECORD to
measure it anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from services.common.releases import ReleaseStore
from services.common.settings import CommonSettings
from training.command import explained, program_parser
from training.crops.sources import Sources
from training.datasets.single_cells import AML_CELLS
from training.errors import RecipeError
from training.evaluation.all_idb.data import BenchmarkData
from training.evaluation.all_idb.frozen import FrozenFigures, frozen_rows
from training.evaluation.all_idb.honest import NETWORKS, Network, train_honestly
from training.evaluation.all_idb.honest_figures import HonestFigures, measure_baselines, measure_network
from training.evaluation.all_idb.measure import RowFigures, measure_row
from training.evaluation.all_idb.picture import draw
from training.evaluation.all_idb.published import train_row
from training.evaluation.all_idb.record import Record, keep, read_record
from training.evaluation.all_idb.rows import ROWS, Row
from training.evaluation.all_idb.table import all_tables
from training.learning.devices import Worker, start_worker

RECORD: Final = Path("docs/runs/all-idb.json")
BASELINES, FROZEN = "baselines", "frozen"


class Job(NamedTuple):
    """One entry of the record: where it stands, what makes it, and whether it is the full form of a row that has a short one."""

    section: str
    name: str
    make: Callable[[], object]
    full: bool = False


def jobs(data: BenchmarkData, runs: Path, store: ReleaseStore, worker: Worker, *, full: bool) -> dict[str, Job]:
    """All rows by the name that ``--only`` takes, in order."""
    found = {row.name: Job("published", row.name, partial(_published, row, data, runs, worker, full), full and bool(row.cuts)) for row in ROWS}
    found[BASELINES] = Job(BASELINES, "all", partial(measure_baselines, data))
    found |= {f"honest-{n.name}": Job("honest", n.name, partial(_honest, n, data, runs, worker)) for n in NETWORKS}
    found[FROZEN] = Job(FROZEN, "all", partial(_frozen, data, store))
    return found


def make(chosen: Sequence[str], every: Mapping[str, Job], path: Path) -> None:
    """Make the chosen rows that are not recorded yet, and record each when it is done.

    Raises:
        RecipeError: there is no such row.
        TrainingError: the data or a file are at fault; what is finished stays.
    """
    if unknown := [name for name in chosen if name not in every]:
        raise RecipeError(f"There is no row {', '.join(unknown)}; there are {', '.join(every)}.")
    for name in chosen or every:
        job = every[name]
        if not _is_recorded(job, read_record(path)):
            keep(path, job.section, job.name, job.make())


def _is_recorded(job: Job, record: Record) -> bool:
    """Whether the figures of a row are there; those of its short form are not those of the full one."""
    figures = record.get(job.section, {}).get(job.name)
    return figures is not None and (not job.full or bool(figures["full"]))


def _published(row: Row, data: BenchmarkData, runs: Path, worker: Worker, full: bool) -> RowFigures:
    train_row(row, data, runs, worker, full=full)
    return measure_row(row, data, runs, worker, full=full)


def _honest(network: Network, data: BenchmarkData, runs: Path, worker: Worker) -> HonestFigures:
    train_honestly(network, data, runs, worker)
    return measure_network(network, data, runs, worker)


def _frozen(data: BenchmarkData, store: ReleaseStore) -> FrozenFigures:
    cut = Sources({**data.cells().folders, **data.crops().folders, AML_CELLS: data.aml_cells}, {}, data.packs)
    return frozen_rows(store, data.fields, data.official_crops(), cut, data.cut / FROZEN)


@explained
def main(arguments: Sequence[str] | None = None) -> None:
    """Train and measure what is asked for, keep it, print the tables."""
    parser = program_parser("all-idb", __doc__)
    parser.add_argument("--data", type=Path, help="folder that holds all_idb/ and the other data")
    parser.add_argument("--only", nargs="+", metavar="ROW", default=[], help="rows, by their names; a name that does not exist lists all")
    parser.add_argument("--full", action="store_true", help="train every row as published, nothing cut")
    parser.add_argument("--runs", type=Path, default=Path("build/runs"), help="folder of all runs (default: %(default)s)")
    parser.add_argument("--cache", type=Path, default=Path("build"), help="folder for what is cut and prepared (default: %(default)s)")
    parser.add_argument("--record", type=Path, default=RECORD, help="where figures are kept (default: %(default)s)")
    parser.add_argument("--print", action="store_true", dest="only_print", help="print the tables of the record and do nothing else")
    parser.add_argument("--picture", type=Path, metavar="SVG", help="draw the AUC of every row")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    given = parser.parse_args(arguments)
    if not given.only_print:
        if given.data is None:
            raise RecipeError("Name the folder of the data with --data, or print what is recorded with --print.")
        with start_worker(given.device) as worker:
            settings = CommonSettings()
            store = ReleaseStore(settings.releases, settings.model_repository)
            every = jobs(BenchmarkData.find(given.data, given.cache), given.runs, store, worker, full=given.full)
            make(given.only, every, given.record)
    if given.picture:
        draw(read_record(given.record), given.picture)
    print(all_tables(read_record(given.record)))


if __name__ == "__main__":
    main()
