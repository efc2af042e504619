"""Statistics: each model once, time by stage."""

from __future__ import annotations

import pytest

from services.gateway.run_stats import RunStats, ServedFile

NET, EMBEDDER = ServedFile("net", 1, "a" * 64), ServedFile("embedder", 2, "b" * 64)


def test_models_are_noted_once_in_the_order_in_which_they_ran() -> None:
    stats = RunStats()
    stats.ran([NET, EMBEDDER], "triton")
    stats.ran([EMBEDDER])
    assert (stats.engine, stats.models) == ("triton", [NET, EMBEDDER])


def test_images_add_up_and_one_without_cells_leaves_the_engine() -> None:
    total, first, second = RunStats(), RunStats("triton", [NET]), RunStats("", [EMBEDDER])
    first.milliseconds["locate"], second.milliseconds["locate"] = 2.0, 3.0
    total.add(first)
    total.add(second)
    assert (total.engine, total.models, dict(total.milliseconds)) == ("triton", [NET, EMBEDDER], {"locate": 5.0})


def test_a_stage_is_timed_even_where_it_fails() -> None:
    stats = RunStats()
    with pytest.raises(RuntimeError), stats.timed("explain"):
        raise RuntimeError
    assert stats.milliseconds["explain"] > 0
