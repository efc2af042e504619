"""The command line of Triton: what the services do not use is closed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deploy.triton.serve import _closed, remove_stale_shared_memory


@pytest.mark.parametrize(
    ("control", "protocols"), [("none", "shared-memory,trace,logging,model-repository"), ("explicit", "shared-memory,trace,logging")]
)
def test_protocols_are_closed_behind_a_secret_that_nobody_is_told(control: str, protocols: str) -> None:
    flags = {_closed(control) for _ in range(3)}
    assert len(flags) == 3, "another secret for every start"
    for flag in flags:
        found = re.fullmatch(r"--grpc-restricted-protocol=([a-z,-]+):[a-z0-9-]+=([0-9a-f]{64})", flag)
        assert found
        assert found[1] == protocols


def test_shared_memory_of_servers_that_are_gone_is_removed(tmp_path: Path) -> None:
    gone, other = tmp_path / "dl4all_triton_999999999_x", tmp_path / "dl4all_triton_1_x"
    gone.touch()
    other.touch()
    remove_stale_shared_memory(tmp_path)
    assert not gone.exists()
    assert other.exists()
