"""Checksums of large files, each made once: in threads while a service serves, so that no call waits for them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from services.common.errors import BrokenReleaseError

PATIENCE_SECONDS: Final = 0.1
"""Seconds that a caller waits for a file, once: the files of a release of a few megabytes take less."""
Stamp = tuple[int, int, int]


class BeingCheckedError(Exception):
    """The file is large and still being read; ask again later."""


class Checksums:
    """Files that were checked, each once.

    A file that does not match its checksum is not read again before it has changed: its time of change, its size or its number.

    Args:
        digest: SHA-256 of a file, hex digits; raises OSError.
    """

    def __init__(self, digest: Callable[[Path], str]) -> None:
        self._digest = digest
        self._matches: set[tuple[Path, str]] = set()
        self._differs: dict[tuple[Path, str], Stamp] = {}
        self._under_way: dict[tuple[Path, str], _Check] = {}

    def check(self, path: Path, sha256: str, *, wait: bool) -> None:
        """Check a file.

        Args:
            path: of the file.
            sha256: its checksum, hex digits.
            wait: until a large file is read; else it is read in a thread, and the check is to be asked for again.

        Raises:
            BrokenReleaseError: it is missing, cannot be read, or is another file.
            BeingCheckedError: it is still being read.
        """
        key = (path, sha256)
        if key in self._matches:
            return
        stamp = _stamp(path)
        if self._differs.get(key) == stamp:
            raise _differs(path)
        check = self._under_way.get(key)
        if check is None:
            check = self._under_way[key] = _Check(self._digest, path, stamp)
            check.start()
            check.join(PATIENCE_SECONDS)
        if wait:
            check.join()
        if check.is_alive():
            raise BeingCheckedError
        del self._under_way[key]
        if check.error is not None:
            raise check.error
        if check.found != sha256:
            self._differs[key] = check.stamp
            raise _differs(path)
        self._matches.add(key)


class _Check(threading.Thread):
    """Reads one file."""

    def __init__(self, digest: Callable[[Path], str], path: Path, stamp: Stamp) -> None:
        super().__init__(name="dl4all-checksum", daemon=True)
        self._digest, self._path = digest, path
        self.stamp = stamp
        self.found = ""
        self.error: Exception | None = None

    def run(self) -> None:
        """Read it, and keep what was found or why nothing was."""
        try:
            self.found = self._digest(self._path)
        except OSError as error:
            self.error = _unreadable(self._path, error)


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _unreadable(path: Path, error: OSError) -> BrokenReleaseError:
    if isinstance(error, FileNotFoundError):
        return BrokenReleaseError("RELEASE_BROKEN", f"{path} is named by a release but missing.")
    return BrokenReleaseError("RELEASE_BROKEN", f"{path} cannot be read: {error.strerror}.")


def _differs(path: Path) -> BrokenReleaseError:
    return BrokenReleaseError("RELEASE_BROKEN", f"{path} does not match its checksum; restore the file or build the release again.")
