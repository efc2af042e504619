"""Large files are read in threads, once, and again only after they have changed."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from services.common.checksums import BeingCheckedError, Checksums
from services.common.errors import BrokenReleaseError


class Counted:
    """A digest that counts its files, waits for a gate, and notes the threads that it ran in."""

    def __init__(self) -> None:
        self.count = 0
        self.gate = threading.Event()
        self.gate.set()
        self.threads: set[int] = set()

    def __call__(self, path: Path) -> str:
        self.count += 1
        self.threads.add(threading.get_ident())
        assert self.gate.wait(20)
        return hashlib.sha256(path.read_bytes()).hexdigest()


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_file_that_matches_is_read_once(tmp_path: Path) -> None:
    counted = Counted()
    checksums = Checksums(counted)
    (tmp_path / "file").write_bytes(b"whole")
    for wait in (True, False, True):
        checksums.check(tmp_path / "file", _sha(b"whole"), wait=wait)
    assert counted.count == 1


def test_a_file_that_differs_is_read_again_only_after_it_has_changed(tmp_path: Path) -> None:
    counted = Counted()
    checksums = Checksums(counted)
    path = tmp_path / "file"
    path.write_bytes(b"other")
    os.utime(path, ns=(1, 1))
    for _ in range(5):
        with pytest.raises(BrokenReleaseError, match="does not match"):
            checksums.check(path, _sha(b"whole"), wait=False)
    assert counted.count == 1
    path.write_bytes(b"whole")
    os.utime(path, ns=(2, 2))
    checksums.check(path, _sha(b"whole"), wait=False)
    assert counted.count == 2


def test_a_large_file_is_read_in_a_thread_while_the_caller_goes_on(tmp_path: Path) -> None:
    counted = Counted()
    counted.gate.clear()
    checksums = Checksums(counted)
    (tmp_path / "file").write_bytes(b"whole")
    for _ in range(5):
        with pytest.raises(BeingCheckedError):
            checksums.check(tmp_path / "file", _sha(b"whole"), wait=False)
    counted.gate.set()
    checksums.check(tmp_path / "file", _sha(b"whole"), wait=True)
    assert counted.count == 1
    assert threading.get_ident() not in counted.threads


def test_a_file_that_is_missing_or_cannot_be_read_is_tried_again(tmp_path: Path) -> None:
    def denied(_: Path) -> str:
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "file"
    with pytest.raises(BrokenReleaseError, match="missing"):
        Checksums(denied).check(path, _sha(b"whole"), wait=False)
    path.write_bytes(b"whole")
    digest: list[Callable[[Path], str]] = [denied]
    checksums = Checksums(lambda found: digest[0](found))
    with pytest.raises(BrokenReleaseError, match="Permission denied"):
        checksums.check(path, _sha(b"whole"), wait=False)
    digest[0] = Counted()
    checksums.check(path, _sha(b"whole"), wait=False)
