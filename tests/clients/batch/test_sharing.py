"""How workers share cores and images."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.batch.sharing import usual_shard_size, usual_workers

_GIB = 1 << 30


@pytest.mark.parametrize(("cores", "memory", "workers"), [(2, 24 * _GIB, 2), (64, 16 * _GIB, 16), (8, _GIB // 2, 1)])
def test_a_worker_for_every_core_that_has_memory(monkeypatch: pytest.MonkeyPatch, cores: int, memory: int, workers: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": memory // 4096, "SC_PAGE_SIZE": 4096}.__getitem__)
    assert usual_workers(None) == workers


def test_one_worker_for_a_gateway() -> None:
    assert usual_workers("127.0.0.1:50051") == 1


@pytest.mark.parametrize(
    ("images", "workers", "size"), [(1, 2, 100), (150, 2, 100), (600, 2, 150), (601, 2, 151), (20_000, 2, 2000), (5000, 1, 2000)]
)
def test_small_batches_have_small_shards(images: int, workers: int, size: int) -> None:
    assert usual_shard_size(images, workers) == size


@given(st.integers(1, 10**6), st.integers(1, 256))
def test_every_worker_has_images(images: int, workers: int) -> None:
    size = usual_shard_size(images, workers)
    assert 1 <= size <= 2000
    shards = -(-images // size)
    assert shards >= workers or size == 100, "only shards of a hundred images are not made smaller"
