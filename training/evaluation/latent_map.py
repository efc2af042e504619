"""Trustworthiness and continuity of the latent map: false neighbours on the map, and true neighbours that the map separates.

    dl4all study latent-map [--release ID] [--neighbours 15]

Trustworthiness and continuity (Venna and Kaski, Neural Networks 19, 2006) of the reference cells, 1 is perfect; the metric is that of the neighbours,
Euclidean distance of unit embeddings. A random map has about 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from services.common.releases import ReleaseStore
from services.common.settings import CommonSettings
from services.retrieval.library import open_library
from services.retrieval.neighbours import project
from training.command import explained, program_parser

Float = NDArray[np.float32]
Integers = NDArray[np.int64]


def ranks(points: Float) -> Integers:
    """Rank of every point as a neighbour of every other, int64 (N, N): 1 is the nearest; 0 on the diagonal."""
    squares = (points.astype(np.float64) ** 2).sum(axis=1)
    distances = squares[:, None] + squares[None] - 2.0 * points.astype(np.float64) @ points.T.astype(np.float64)
    np.fill_diagonal(distances, -np.inf)
    order = np.argsort(distances, axis=1, kind="stable")
    found = np.empty_like(order)
    np.put_along_axis(found, order, np.arange(len(points))[None], axis=1)
    return found


def intrusion(true: Integers, seen: Integers, neighbours: int) -> float:
    """1 less the mean, scaled to 0..1, of how far off in truth are those that are seen among the nearest.

    Args:
        true, seen: ranks (N, N) in two spaces; with the data's as ``true`` it is trustworthiness, the other way round continuity.
        neighbours: k, below N / 2.
    """
    count = len(true)
    near = (seen >= 1) & (seen <= neighbours)
    excess = np.maximum(true - neighbours, 0)[near].sum()
    return float(1.0 - 2.0 * excess / (count * neighbours * (2 * count - 3 * neighbours - 1)))


@explained
def main(arguments: Sequence[str] | None = None) -> None:
    """Print both figures of a release."""
    parser = program_parser("latent-map", __doc__)
    parser.add_argument("--release", default="", help="release id or system; the default release if not given")
    parser.add_argument("--neighbours", type=int, default=15, help="(default: %(default)s)")
    given = parser.parse_args(arguments)
    settings = CommonSettings()
    store = ReleaseStore(settings.releases, settings.model_repository)
    release = store.resolve(given.release)
    library = open_library(store.library_path(release))
    true, seen = ranks(library.embeddings), ranks(project(library.embeddings, library.projection_mean, library.projection))
    print(
        f"{release.id}, {len(library)} references, {given.neighbours} neighbours: "
        f"trustworthiness {intrusion(true, seen, given.neighbours):.3f}, continuity {intrusion(seen, true, given.neighbours):.3f}"
    )


if __name__ == "__main__":
    main()
