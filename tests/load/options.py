"""Options that the programs of the load test share, and how they end on Ctrl-C."""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from services.common.home import HOME_VARIABLE
from tests.benchmarks.workloads import LOADS
from tests.load.targets import GATEWAY, TARGETS
from tests.paths import ROOT

OUT: Final = ROOT / "build" / "load"


def parser(text: str | None, seconds: float, what: str, workloads: tuple[str, ...] = tuple(LOADS)) -> argparse.ArgumentParser:
    """A parser with the shared options.

    Args:
        text: what the program does.
        seconds: default of ``--seconds``.
        what: lasts so long.
        workloads: default of ``--workloads``.
    """
    made = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--target", nargs="+", choices=TARGETS, default=None, help=f"what is started and put under load (default: {' '.join(TARGETS)})")
    made.add_argument(
        "--address",
        default="",
        help="host:port of a gateway that runs already, instead of --target; TLS by DL4ALL_TLS_CA and so on. Its CPU time and memory are not measured",
    )
    made.add_argument(
        "--workloads",
        nargs="+",
        choices=tuple(LOADS),
        default=None,
        help=f"crops: one cell in 264x264 px. fields: 640x480 px, 4 cells. mix: two crops to one field (default: {' '.join(workloads)})",
    )
    made.add_argument("--seconds", type=_positive, default=None, help=f"{what} (default: {seconds:g})")
    made.add_argument("--out", type=Path, default=OUT, help="folder for the JSON file and the HTML page (default: build/load)")
    return made


def targets_of(given: argparse.Namespace, default: tuple[str, ...] = TARGETS) -> list[str]:
    """Names of the targets that were asked for, each once."""
    if given.address:
        if given.target:
            raise SystemExit("Give either --target or --address.")
        return [GATEWAY]
    return list(dict.fromkeys(given.target or default))


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Ctrl-C and SIGTERM raise KeyboardInterrupt here, however this process was started; servers are found in this checkout."""
    os.environ.setdefault(HOME_VARIABLE, str(ROOT))
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return value
