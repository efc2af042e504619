"""Plans."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from clients.batch.errors import BatchError
from clients.batch.plan import Options, differences, find_plan, lines_of, make_plan, read_plan, rewrite_plan
from clients.batch.store import Store
from tests.clients.batch.making import lines, planned


def test_a_plan_comes_back_with_the_lines_of_its_shards(tmp_path: Path) -> None:
    store, plan = planned(tmp_path, 10, shard_size=4)
    assert read_plan(store) == plan
    assert plan.shards == 3
    assert [plan.size_of(shard) for shard in range(3)] == [4, 4, 2]
    assert [line for shard in range(3) for line in lines_of(store, plan, shard)] == lines(10)
    with pytest.raises(BatchError, match="has 3 shards"):
        lines_of(store, plan, 3)


def test_what_is_no_plan_is_said(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    assert find_plan(store) is None
    with pytest.raises(BatchError, match="There is no batch"):
        read_plan(store)
    for content in (b"{}", b"[]", b"no json", b'{"form": 2}'):
        store.write("plan.json", content)
        with pytest.raises(BatchError):
            read_plan(store)


def test_a_plan_without_its_manifest_is_said(tmp_path: Path) -> None:
    store, plan = planned(tmp_path, 3)
    (tmp_path / "manifest.parquet").unlink()
    with pytest.raises(BatchError, match="manifest of the batch"):
        lines_of(store, plan, 0)


def test_what_must_not_be_mixed_is_told_in_words() -> None:
    plan = make_plan(lines(3), Options("release-1"), {}, None)
    assert differences(plan, plan) == []
    assert differences(plan, replace(plan, address="other:1", shard_size=7)) == []
    (other,) = differences(plan, make_plan(lines(4), Options("release-1"), {}, None))
    assert "3 images then, 4 now" in other
    assert differences(plan, replace(plan, options=Options("release-2", "cell", 3))) == [
        "release was 'release-1' and is 'release-2'",
        "kind was 'auto' and is 'cell'",
        "neighbours was 0 and is 3",
    ]
    assert differences(plan, replace(plan, releases={"dss": "dss-2"}))


def test_lines_name_releases(tmp_path: Path) -> None:
    store, plan = planned(tmp_path, 1)
    plan = replace(plan, releases={"dss": "dss-1"})
    rewrite_plan(store, plan)
    line = lines(1)[0]
    assert read_plan(store).release_of(line) == "release-1"
    assert read_plan(store).release_of(replace(line, release="dss")) == "dss-1"
