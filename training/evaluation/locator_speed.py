"""CPU time of location in one thread, by the stain and by a locator as ONNX Runtime runs it; both alternate, only ratios count.

dl4all study locator-speed --data DATA --run build/runs/locator-folds-0/fold-0
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from services.common.engines.onnx_runtime import open_session
from services.common.image_codec import decode_image
from services.common.phantom import PhantomOptions, smear_field
from services.patching import locating
from services.patching.cells import locate_cells
from services.patching.locator_maps import MAPS
from training.command import explained, program_parser
from training.export.locator import export_locator
from training.export.onnx_model import INPUT
from training.location.run import load_locator

Bytes = NDArray[np.uint8]
ROUNDS: Final = 5
PHANTOM: Final = PhantomOptions(width=2592, height=1944, cells=100, cell_radius=42.0, label=False)
SETS: Final = (
    ("640 x 480, `bccd_fields`", "bccd_fields/JPEGImages/*.jpg", 40),
    ("1440 x 900, `chula_fields`", "chula_fields/images/*.jpg", 6),
    ("2592 x 1944, `all_idb`", "all_idb/ALL_IDB1/im/Im0[3-9]*.jpg", 8),
    ("crop of 264 px, `aml_cells`", "aml_cells/**/*.jpg", 400),
)
"""Of each set every so many files."""


def images_of(data: Path) -> Iterator[tuple[str, list[bytes]]]:
    """Encoded images by title; sets that are not there are left out."""
    for title, pattern, every in SETS:
        if paths := sorted(data.glob(pattern))[::every]:
            yield title, [path.read_bytes() for path in paths]


def row(title: str, images: Sequence[Bytes], network: Callable[[Bytes], NDArray[np.float32]], decode: Callable[[], object] | None = None) -> str:
    """One line: medians in CPU milliseconds, and how many times as fast the locator is."""
    works: list[list[Callable[[], object]]] = [
        [
            partial(locate_cells, image, masks=False),
            partial(_located, image, network),
            partial(locating.survey, image),
            decode or (lambda: None),
        ]
        for image in images
    ]
    times = [[[_milliseconds(work) for work in of_image] for of_image in works] for _ in track(range(ROUNDS), title)]
    stain, locator, survey, decoding = (median(t[i] for of_round in times for t in of_round) for i in range(4))
    decoded = f"{decoding:.0f}" if decode is not None else ""
    return f"| {title} | {decoded} | {stain:.1f} | {locator:.1f} | {survey:.1f} | {stain / locator:.1f} |"


def _located(image: Bytes, network: Callable[[Bytes], NDArray[np.float32]]) -> object:
    return locating.run(locating.locate(image, masks=False), network)


def _milliseconds(work: Callable[[], object]) -> float:
    began = time.thread_time()
    work()
    return 1e3 * (time.thread_time() - began)


@explained
def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table."""
    parser = program_parser("locator-speed", __doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds bccd_fields, chula_fields, all_idb and aml_cells")
    parser.add_argument("--run", type=Path, required=True, help="run of `dl4all train locator`, or one of its folds")
    given = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_locator(load_locator(given.run), path)
        session = open_session(path, threads=1)

        def network(seen: Bytes) -> NDArray[np.float32]:
            return np.asarray(session.run([MAPS], {INPUT: seen[None]})[0][0], np.float32)

        print(
            "| image | decoding, ms | by the stain, ms | by the locator, ms | of these, light and scale | times as fast |\n|---|---|---|---|---|---|"
        )
        for title, encoded in images_of(given.data):
            print(row(title, [decode_image(e).pixels for e in encoded], network, partial(decode_image, encoded[0])))
        print(row("phantom of 5 megapixels with 100 cells", [smear_field(1, PHANTOM).image], network))


if __name__ == "__main__":
    main()
