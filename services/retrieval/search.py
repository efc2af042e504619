"""Exact search for nearest known cells with FAISS, on the CPU or a GPU behind one interface."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext

import faiss
import numpy as np
from numpy.typing import NDArray

from services.common.errors import ConfigurationError

Float = NDArray[np.float32]


class ExactSearch:
    """Holds references and finds the nearest of them: every one is compared, none is approximated.

    Args:
        references: float32 (M, D), unit length.
        gpu: whether to search on a GPU; needs the extra ``gpu``.

    Raises:
        ConfigurationError: a GPU is requested and this FAISS has none.
    """

    def __init__(self, references: Float, *, gpu: bool = False) -> None:
        self._count = len(references)
        self._index: faiss.Index = faiss.IndexFlatIP(references.shape[1])
        if gpu:
            if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() < 1:
                raise ConfigurationError("GPU_UNAVAILABLE", "This FAISS cannot use a GPU; install the extra gpu instead of cpu.")
            self._resources = faiss.StandardGpuResources()
            self._index = faiss.index_cpu_to_gpu(self._resources, 0, self._index)
        self._index.add(np.ascontiguousarray(references))
        self._one_at_a_time: AbstractContextManager[object] = threading.Lock() if gpu else nullcontext()
        """Indices on a GPU share scratch memory and must not be searched by two threads at once."""

    def nearest(self, queries: Float, k: int) -> tuple[NDArray[np.int64], Float]:
        """Find the k nearest references.

        Args:
            queries: float32 (N, D), unit length.
            k: how many; at most M are returned.

        Returns:
            Indices int64 (N, k) and Euclidean distances float32 (N, k) = sqrt(2 - 2 cosine), nearest first, ties by index.
        """
        faiss.omp_set_num_threads(1)  # holds for the calling thread only; a worker thread is one thread
        with self._one_at_a_time:
            similarities, indices = self._index.search(np.ascontiguousarray(queries), min(k, self._count))
        order = np.lexsort((indices, -similarities), axis=1)
        similarities, indices = np.take_along_axis(similarities, order, axis=1), np.take_along_axis(indices, order, axis=1)
        distances = np.sqrt(np.maximum(2.0 - 2.0 * similarities, 0.0))
        return indices.astype(np.int64), distances.astype(np.float32)
