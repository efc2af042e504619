"""The file of a slide: below a configured root, or uploaded into a file of its own that is removed when the call ends."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final

from services.common.errors import ConfigurationError, FailedPreconditionError, InvalidImageError, InvalidRequestError, NotFoundError, OverloadedError
from services.common.processes import is_alive

PREFIX: Final = "dl4all-slide-"
_FREE_BYTES: Final = 256 * 1024 * 1024
"""Space that stays free on the disk of the uploads."""
_READ_AT_ONCE: Final = 4 * 1024 * 1024
_HASHED_AT_ONCE: Final = 16 * _READ_AT_ONCE


def below(root: Path | None, path: str) -> Path:
    """The file or folder that a caller names.

    Args:
        root: where slides may lie; None where callers may not name any.
        path: relative to it, with forward slashes.

    Raises:
        FailedPreconditionError: SLIDES_ROOT_UNSET.
        InvalidRequestError: SLIDE_PATH_INVALID: it is absolute, leaves the root, or is no path.
        NotFoundError: SLIDE_NOT_FOUND.
    """
    if root is None:
        raise FailedPreconditionError(
            "SLIDES_ROOT_UNSET", "This service reads no slides by path; upload the slide, or set DL4ALL_PATCHING_SLIDES_ROOT.", field="source.path"
        )
    outside = InvalidRequestError("SLIDE_PATH_INVALID", "The path must be relative and stay below the root of the slides.", field="source.path")
    if not path or "\0" in path or "\\" in path or path.startswith("/"):
        raise outside
    resolved_root = root.resolve()
    try:
        resolved = (resolved_root / path).resolve()
    except (OSError, RuntimeError) as error:
        raise outside from error
    if not resolved.is_relative_to(resolved_root) or resolved == resolved_root:
        raise outside
    try:
        there = resolved.is_dir() or resolved.is_file()
    except OSError as error:
        raise outside from error
    if not there:
        raise NotFoundError("SLIDE_NOT_FOUND", "There is no slide at this path.", field="source.path")
    return resolved


def check_announced(announced: int, limit: int) -> None:
    """Refuse an upload by what its start says.

    Args:
        announced: bytes that the caller says will come.
        limit: largest slide that is accepted.

    Raises:
        InvalidRequestError: UPLOAD_BYTES_OUT_OF_RANGE.
        InvalidImageError: SLIDE_TOO_LARGE.
    """
    if announced < 1:
        raise InvalidRequestError("UPLOAD_BYTES_OUT_OF_RANGE", "source.upload_bytes must say how many bytes come.", field="source.upload_bytes")
    if announced > limit:
        raise InvalidImageError("SLIDE_TOO_LARGE", f"The slide has {announced} bytes; at most {limit // (1024 * 1024)} MiB are accepted.")


class Upload:
    """A file that comes in chunks; it exists while the block runs.

    Args:
        folder: where the file is put.
        announced: bytes that the caller says will come.
        limit: largest slide that is accepted.

    Raises:
        InvalidRequestError: UPLOAD_BYTES_OUT_OF_RANGE.
        InvalidImageError: SLIDE_TOO_LARGE.
        OverloadedError: DISK_FULL.
    """

    def __init__(self, folder: Path, announced: int, limit: int) -> None:
        check_announced(announced, limit)
        folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder).free < announced + _FREE_BYTES:
            raise OverloadedError("DISK_FULL", "There is no room for the slide now; try again later, or name a path below the root of the slides.")
        descriptor, name = tempfile.mkstemp(prefix=f"{PREFIX}{os.getpid()}-", dir=folder)
        self.path = Path(name)
        self.received = 0
        self._announced = announced
        self._file = os.fdopen(descriptor, "wb")
        self._digest = hashlib.sha256()

    def __enter__(self) -> Upload:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._file.close()
        except OSError:  # the disk is full, and the unwritten bytes are not needed any more
            pass
        finally:
            self.path.unlink(missing_ok=True)

    @property
    def is_whole(self) -> bool:
        """Whether all announced bytes have come."""
        return self.received == self._announced

    def write(self, chunk: bytes) -> None:
        """Add a chunk.

        Raises:
            InvalidRequestError: UPLOAD_TOO_LONG: more bytes come than were announced.
            OverloadedError: DISK_FULL.
        """
        if self.received + len(chunk) > self._announced:
            raise InvalidRequestError("UPLOAD_TOO_LONG", f"More than the announced {self._announced} bytes came.", field="chunk")
        with _stored():
            self._file.write(chunk)
        self._digest.update(chunk)
        self.received += len(chunk)

    def finish(self) -> str:
        """SHA-256 of the whole upload, hex digits.

        Raises:
            InvalidRequestError: UPLOAD_INCOMPLETE: the caller stopped early.
            OverloadedError: DISK_FULL.
        """
        if not self.is_whole:
            raise InvalidRequestError(
                "UPLOAD_INCOMPLETE", f"{self.received} of the announced {self._announced} bytes came; send the slide again.", field="chunk"
            )
        with _stored():
            self._file.flush()
        return self._digest.hexdigest()


@contextmanager
def _stored() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OverloadedError("DISK_FULL", "The slide could not be stored; try again later.") from error


def check_uploads(folder: Path) -> None:
    """Make the folder of uploads, and try to write to it. Called at the start, so that no caller is the first to find out.

    Raises:
        ConfigurationError: SLIDE_UPLOADS_UNWRITABLE.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(prefix=f"{PREFIX}{os.getpid()}-", dir=folder) as file:
            file.write(b"\0")
    except OSError as error:
        raise ConfigurationError(
            "SLIDE_UPLOADS_UNWRITABLE",
            f"Uploaded slides cannot be written to {folder} ({error.strerror or error}); set DL4ALL_PATCHING_SLIDE_UPLOADS to a folder that can be written.",
        ) from error


def remove_left_over(folder: Path) -> int:
    """Remove uploads of processes that are gone, as after a kill, and of an earlier process with this number. Called at the start.

    Returns:
        Number of removed uploads.
    """
    removed = 0
    for path in folder.glob(f"{PREFIX}*"):
        owner = path.name.removeprefix(PREFIX).partition("-")[0]
        if owner.isdigit() and (int(owner) == os.getpid() or not is_alive(int(owner))):
            path.unlink(missing_ok=True)
            removed += 1
    return removed


class SlideDigest:
    """SHA-256 of a file; of a folder, that of the digests of its files in order of their names. It is made in steps.

    Args:
        path: of the file or folder.
    """

    def __init__(self, path: Path) -> None:
        self._is_folder = path.is_dir()
        self._left = sorted((p for p in path.iterdir() if p.is_file()), reverse=True) if self._is_folder else [path]
        self._together, self._digest = hashlib.sha256(), hashlib.sha256()
        self._position = 0

    def step(self) -> bool:
        """Read some more bytes, at most ``_HASHED_AT_ONCE``; returns whether more are left."""
        if not self._left:
            return False
        read = 0
        with self._left[-1].open("rb") as file:
            file.seek(self._position)
            while read < _HASHED_AT_ONCE and (chunk := file.read(_READ_AT_ONCE)):
                self._digest.update(chunk)
                read += len(chunk)
        self._position += read
        if read < _HASHED_AT_ONCE:
            self._left.pop()
            if self._is_folder:
                self._together.update(self._digest.hexdigest().encode())
                self._digest, self._position = hashlib.sha256(), 0
        return bool(self._left)

    def hexdigest(self) -> str:
        """The digest of all bytes that were read, hex digits."""
        return (self._together if self._is_folder else self._digest).hexdigest()


def sha256_of_slide(path: Path) -> str:
    """SHA-256 of a slide at once; see ``SlideDigest``."""
    digest = SlideDigest(path)
    while digest.step():
        pass
    return digest.hexdigest()
