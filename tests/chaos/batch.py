"""Score a batch while everything that takes part in it is killed once, and compare it with an undisturbed run.

    python -m tests.chaos.batch --images 20000

The archive has phantoms and, where they are there, images of the development data, each under many names. One run goes undisturbed. In the other
one the driver, a worker, the gateway, one inner service and the Triton are each ended by SIGKILL, at moments drawn by the seed, and the batch is
resumed. Both must have exactly one row for each line, and the same rows.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from clients.batch.merging import read_results
from clients.batch.plan import read_plan
from clients.batch.rows import ANSWERED, OF_THE_RUN, SET_ASIDE
from clients.batch.status import StatusReader
from clients.batch.store import Store
from services.common.parts import INNER_SERVICES, TRITON
from services.common.phantom import CellKind, PhantomOptions, encode_png, single_cell, smear_field
from tests.paths import DATA, ROOT
from tests.running import Stack, runs

FIELD: Final = PhantomOptions(width=640, height=480, cells=4)
WORKER: Final = "clients.batch.worker"
TOLERANCE: Final = 1e-4
"""Largest difference of a number of two runs: the cells of one inference are not the same ones in both."""
_SEED: Final = 1
_LOOK_SECONDS: Final = 0.05
_DOWN_SECONDS: Final = 1.0
_PATIENCE_SECONDS: Final = 14_400.0
_REAL: Final = ("bccd_fields", "aml_cells", "pbc_cells")
"""Development data whose images are fields of 640 x 480 px or crops of single cells."""
_CROPS_TO_A_FIELD: Final = 5


def make_archive(folder: Path, count: int, pool: int = 200) -> list[Path]:
    """Images under ``count`` names: four crops of single cells to one field of 640 x 480 px, and some real images; links to a pool of them."""
    kinds = list(CellKind)
    sources = folder / "pool"
    sources.mkdir(parents=True)
    made = []
    for number in range(min(pool, count)):
        image = smear_field(number, FIELD) if number % _CROPS_TO_A_FIELD == 0 else single_cell(number, kinds[number % len(kinds)])
        made.append(sources / f"phantom-{number:04d}.png")
        made[-1].write_bytes(encode_png(image))
    for number, real in enumerate(_real_images(pool // 10)):
        made.append(sources / f"real-{number:04d}{real.suffix}")
        shutil.copyfile(real, made[-1])
    archive = folder / "archive"
    archive.mkdir()
    named = []
    for number in range(count):
        source = made[number % len(made)]
        named.append(archive / f"{number:06d}{source.suffix}")
        os.link(source, named[-1])
    return named


def _real_images(most: int) -> list[Path]:
    found: list[Path] = []
    for name in _REAL:
        images = sorted(path for path in (DATA / name).rglob("*") if path.suffix.lower() in (".jpg", ".png", ".tif", ".tiff"))
        found += images[:: max(1, len(images) // max(1, most // len(_REAL)))][: most // len(_REAL)]
    return found


def command(*arguments: str) -> list[str]:
    """``dl4all batch`` with arguments."""
    return [sys.executable, "-m", "clients.cli.main", "batch", *arguments]


@dataclass
class Killing:
    """A part that is killed when a share of the images is done."""

    what: str
    share: float


@dataclass
class Disturbed:
    """A batch whose parts are killed.

    Attributes:
        stack: that scores it.
        source: folder of images.
        out: of the batch.
        options: of ``dl4all batch run``.
        killed: what was killed so far, with the images that were done then.
    """

    stack: Stack
    source: Path
    out: Path
    options: Sequence[str] = ()
    killed: list[tuple[str, int]] = field(default_factory=list)

    def run(self, seed: int, patience: float = _PATIENCE_SECONDS) -> None:
        """Run the batch to its end, whatever is killed."""
        waiting = killings(seed)
        driver = self._start("run", str(self.source), "--out", str(self.out), *self.options)
        end, restarts = time.monotonic() + patience, dict[str, float]()
        try:
            while driver.poll() is None or waiting:
                assert time.monotonic() < end, f"not finished after {patience:.0f} s; killed so far: {self.killed}"
                time.sleep(_LOOK_SECONDS)
                for name in [name for name, since in restarts.items() if time.monotonic() - since > _DOWN_SECONDS]:
                    self.stack[name].start()
                    del restarts[name]
                done, images = self._done()
                assert not waiting or driver.poll() is None, f"the driver ended before {waiting[0].what} was killed"
                if driver.poll() is None and waiting and images and done >= waiting[0].share * images:
                    what = waiting.pop(0).what
                    if what == "driver":
                        driver.kill()
                        driver.wait()
                        driver = self._start("resume", str(self.out), "--address", self.stack["gateway"].address)
                    elif what == "worker":
                        kill_a_worker(driver.pid)
                    else:
                        self.stack[what].kill()
                        restarts[what] = time.monotonic()
                    self.killed.append((what, done))
            assert driver.returncode == 0, f"the driver ended with status {driver.returncode}"
        finally:
            driver.kill()
            driver.wait()
            for name in restarts:
                self.stack[name].start()

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command(*arguments), cwd=ROOT, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, start_new_session=True)

    def _done(self) -> tuple[int, int]:
        store = Store(str(self.out))
        if store.read("plan.json") is None:
            return 0, 0
        status = StatusReader(store, read_plan(store)).read()
        return status.done, status.images


def killings(seed: int) -> list[Killing]:
    """What is killed when: each part once, in an order and at moments that the seed draws."""
    drawn = random.Random(seed)
    parts = ["driver", "worker", "gateway", drawn.choice(list(INNER_SERVICES)), TRITON]
    drawn.shuffle(parts)
    step = 0.8 / len(parts)
    return [Killing(what, 0.05 + step * (place + 0.8 * drawn.random())) for place, what in enumerate(parts)]


def kill_a_worker(driver: int) -> None:
    """Kill a worker process of a driver; waits until there is one."""
    end = time.monotonic() + 60.0
    while time.monotonic() < end:
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and _parent(entry) == driver and WORKER in _command_line(entry) and runs(int(entry.name)):
                os.kill(int(entry.name), signal.SIGKILL)
                return
        time.sleep(_LOOK_SECONDS)
    raise AssertionError("there is no worker")


def _parent(process: Path) -> int:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return -1


def _command_line(process: Path) -> str:
    try:
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""


@dataclass
class Comparison:
    """How two runs of one manifest compare.

    Attributes:
        rows: of each.
        answered: rows with a diagnosis, of the first.
        largest: largest difference of a number.
        different: names of columns whose other values differ, with the first line.
    """

    rows: tuple[int, int]
    answered: int
    largest: float
    different: dict[str, int]


def compare(first: pa.Table, second: pa.Table, leave_out: Sequence[str] = ()) -> Comparison:
    """Compare the rows of two runs, line by line; columns that tell of the run itself are left out."""
    columns = [name for name in first.column_names if name not in (*OF_THE_RUN, *leave_out)]
    largest, different = 0.0, dict[str, int]()
    for one, other in zip(first.select(columns).to_pylist(), second.select(columns).to_pylist(), strict=True):
        for name in columns:
            distance = _distance(one[name], other[name])
            if distance is None or distance > TOLERANCE:
                different.setdefault(name, one["line"])
            largest = max(largest, distance or 0.0)
    answered = sum(status == ANSWERED for status in first["status"].to_pylist())
    return Comparison((len(first), len(second)), answered, largest, different)


def _distance(one: Any, other: Any) -> float | None:
    """Largest difference of the numbers in two values; None where anything else differs."""
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other)
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        found = [_distance(a, b) for a, b in zip(one, other, strict=True)]
        return None if None in found else max((d for d in found if d is not None), default=0.0)
    if isinstance(one, dict) and isinstance(other, dict):
        return _distance([one[name] for name in sorted(one)], [other[name] for name in sorted(other)])
    return 0.0 if one == other else None


def run_quietly(arguments: Sequence[str], seconds: float) -> None:
    """Run ``dl4all batch`` to its end."""
    done = subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, done.stderr


@contextmanager
def working_folder(given: Path | None) -> Iterator[Path]:
    """The folder that was given, or one that is deleted at the end."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="dl4all-chaos-") as temporary:
        yield Path(temporary)


def report(images: int, quiet: Path, disturbed: Path, leave_out: Sequence[str] = ()) -> bool:
    """Print how two batches compare, as JSON; whether the second one is whole and the rows are the same."""
    tables = [read_results(Store(str(folder))) for folder in (quiet, disturbed)]
    found = compare(tables[0], tables[1], leave_out)
    whole = tables[1]["line"].to_pylist() == list(range(images))
    record = {
        "rows": found.rows,
        "lines once each": whole,
        "answered": found.answered,
        "set aside": tables[1]["status"].to_pylist().count(SET_ASIDE),
        "more than one attempt": sum(attempts > 1 for attempts in tables[1]["attempts"].to_pylist()),
        "largest difference of a number": found.largest,
        "columns that differ": found.different,
    }
    print(json.dumps(record), flush=True)
    return whole and not found.different


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=_SEED)
    parser.add_argument("--shard-size", type=int, default=2000)
    parser.add_argument("--folder", type=Path, help="for the archive and the batches; kept. Default: a temporary one")
    given = parser.parse_args()
    stack = Stack.make({"DL4ALL_HEALTH_INTERVAL_SECONDS": "1"})
    with working_folder(given.folder) as folder:
        if not (folder / "archive").exists():
            make_archive(folder, given.images)
        options = ["--address", stack["gateway"].address, "--shard-size", str(given.shard_size)]
        try:
            stack.start()
            started = time.monotonic()
            run_quietly(["run", str(folder / "archive"), "--out", str(folder / "quiet"), *options], _PATIENCE_SECONDS)
            print(f"undisturbed: {given.images} images in {time.monotonic() - started:.0f} s", flush=True)
            started = time.monotonic()
            disturbed = Disturbed(stack, folder / "archive", folder / "disturbed", options)
            disturbed.run(given.seed)
            print(f"disturbed: {time.monotonic() - started:.0f} s; killed, and images done then: {disturbed.killed}", flush=True)
        finally:
            stack.end()
        if not report(given.images, folder / "quiet", folder / "disturbed"):
            raise SystemExit(1)


if __name__ == "__main__":
    main()
