"""The locks of the installed packages are fresh, hashed, and free of hosts and of our own distributions."""

from __future__ import annotations

import re

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.ci.lock import LOCKS, OWN, declared, lock_path, stamp

PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)((?: ;.*)?) \\$")


def _lines(name: str) -> list[str]:
    return lock_path(name).read_text(encoding="utf-8").splitlines()


def _pins(name: str) -> dict[str, list[str]]:
    """Pinned versions by name; several where they differ between versions of Python."""
    pins: dict[str, list[str]] = {}
    for line in _lines(name):
        if found := PIN.match(line):
            pins.setdefault(canonicalize_name(found[1]), []).append(found[2])
    return pins


@pytest.mark.parametrize("name", sorted(LOCKS))
def test_a_lock_is_of_what_the_projects_state_now(name: str) -> None:
    assert _lines(name)[0] == stamp(name), "stale: run `make lock`"


@pytest.mark.parametrize("name", sorted(LOCKS))
def test_every_stated_requirement_is_pinned_to_versions_that_fit(name: str) -> None:
    pins = _pins(name)
    for requirement in map(Requirement, declared(name)):
        if canonicalize_name(requirement.name) in OWN:
            continue
        versions = pins[canonicalize_name(requirement.name)]
        assert all(requirement.specifier.contains(version) for version in versions), requirement


@pytest.mark.parametrize("name", sorted(LOCKS))
def test_every_line_is_a_pin_or_a_hash_and_names_no_host(name: str) -> None:
    for line in _lines(name)[1:]:
        assert PIN.match(line) or re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}(?: \\)?", line), line
    assert not set(OWN) & set(_pins(name)), "our own are installed from here, never from an index"


def test_what_serves_is_pinned_alike_for_tests() -> None:
    serving, dev = _pins("serving"), _pins("dev")
    assert {name: dev.get(name) for name in serving} == serving


def test_no_lock_holds_torch_or_what_needs_a_gpu() -> None:
    assert not {name for lock in LOCKS for name in _pins(lock) if name.startswith(("torch", "nvidia")) or name.endswith("-gpu")}
