"""CPU time of location in one thread, by the stain and by a locator as ONNX Runtime runs it; both alternate, only ratios count.

dl4all study locator-speed --data DATA --run build/runs/locator-folds-0/fold-0
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from services.common.image_codec import decode_image
from services.common.phantom import PhantomOptions, smear_field
from services.patching import locating
from services.patching.cells import locate_cells
from training.command import explained, program_parser
from training.crops.locator_file import opened
from training.export.locator import export_locator
from training.location.run import load_locator

Bytes = NDArray[np.uint8]
ROUNDS: Final = 5
PHANTOM: Final = PhantomOptions(width=2592, height=1944, cell_radius=42.0, label=False)
SETS: Final = (
    ("640 x 480, `bccd_fields`", "bccd_fields/JPEGImages/*.jpg", 40),
    ("1440 x 900, `chula_fields`", "chula_fields/images/*.jpg", 6),
    ("2592 x 1944, `all_idb`", "all_idb/ALL_IDB1/im/Im0[5-9]*.jpg", 4),
    ("crop of 264 px, `aml_cells`", "aml_cells/**/*.jpg", 400),
)
"""Of each set every so many files."""
HEADS: Final = (
    "image",
    "decoding, ms",
    "by the stain, ms",
    "by the locator, ms",
    "of these, light and scale",
    "times as fast",
    "times the decoding",
)


def images_of(data: Path) -> Iterator[tuple[str, list[bytes]]]:
    """Encoded images by title; sets that are not there are left out."""
    for title, pattern, every in SETS:
        if paths := sorted(data.glob(pattern))[::every]:
            yield title, [path.read_bytes() for path in paths]


def row(title: str, encoded: Sequence[bytes], network: Callable[[Bytes], NDArray[np.float32]]) -> str:
    """One line: medians in CPU milliseconds, and how many times as fast the locator is."""
    times = [[_times(e, network) for e in encoded] for _ in track(range(ROUNDS), title)]
    decoding, stain, locator, survey = (median(t[i] for of_round in times for t in of_round) for i in range(4))
    return f"| {title} | {decoding:.0f} | {stain:.1f} | {locator:.1f} | {survey:.1f} | {stain / locator:.1f} | {locator / decoding:.1f} |"


def _times(encoded: bytes, network: Callable[[Bytes], NDArray[np.float32]]) -> tuple[float, float, float, float]:
    image = decode_image(encoded).pixels
    return (
        _milliseconds(partial(decode_image, encoded)),
        _milliseconds(partial(locate_cells, image, masks=False)),
        _milliseconds(partial(_located, image, network)),
        _milliseconds(partial(locating.survey, image)),
    )


def _drawn(options: PhantomOptions) -> bytes:
    ok, encoded = cv2.imencode(".jpg", smear_field(1, options).image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    assert ok
    return encoded.tobytes()


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
        network = opened(path)
        print(f"| {' | '.join(HEADS)} |\n|{'---|' * len(HEADS)}")
        for title, encoded in images_of(given.data):
            print(row(title, encoded, network))
        for cells in (100, 200):
            print(row(f"phantom of 5 megapixels with {cells} cells", [_drawn(replace(PHANTOM, cells=cells))], network))


if __name__ == "__main__":
    main()
