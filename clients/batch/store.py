"""The folder of a batch: a folder of this machine, or one of an object store by fsspec."""

from __future__ import annotations

import os
import posixpath
import uuid
from contextlib import suppress
from pathlib import Path

from clients.batch.images import file_system, is_remote, local_path


class Store:
    """Files of a batch, each written whole.

    Args:
        location: a path, or a URI that fsspec knows. On an object store, ``create`` is a conditional write.

    Raises:
        BatchError: the file system's package is not installed.
    """

    def __init__(self, location: str) -> None:
        self.location = location if is_remote(location) else str(local_path(location).absolute())
        self._system, self._root = file_system(self.location)

    @property
    def folder(self) -> Path | None:
        """The folder, where it is one of this machine."""
        return None if is_remote(self.location) else Path(self.location)

    def read(self, name: str) -> bytes | None:
        """The content of a file; None where there is none."""
        try:
            content: bytes = self._system.cat_file(self._path(name))
        except FileNotFoundError:
            return None
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write a file, or write it anew: readers see the old content or the new one. It is on disk when this returns."""
        if self.folder is None:
            self._system.pipe_file(self._path(name), content)
            return
        path = self.folder / name
        partial = _written(path, content)
        os.replace(partial, path)
        sync_folder(path.parent)

    def create(self, name: str, content: bytes) -> bool:
        """Write a file that must not be there.

        Returns:
            Whether it was written; False where it was there. Of several that try at once, one succeeds.
        """
        if self.folder is None:
            try:
                self._system.pipe_file(self._path(name), content, mode="create")
            except FileExistsError:
                return False
            return True
        path = self.folder / name
        partial = _written(path, content)
        try:
            os.link(partial, path)
        except FileExistsError:
            return False
        finally:
            partial.unlink()
        sync_folder(path.parent)
        return True

    def names(self, folder: str) -> list[str]:
        """Names of the files directly in a folder, sorted; none where there is no such folder."""
        if self.folder is not None:
            with suppress(FileNotFoundError, NotADirectoryError):
                return sorted(entry.name for entry in os.scandir(self.folder / folder) if entry.is_file() and not entry.name.startswith("."))
            return []
        self._system.invalidate_cache()
        try:
            return sorted(posixpath.basename(path) for path in self._system.ls(self._path(folder), detail=False))
        except FileNotFoundError:
            return []

    def delete(self) -> None:
        """Delete the whole batch."""
        with suppress(FileNotFoundError):
            self._system.rm(self._root, recursive=True)

    def put(self, path: Path, name: str) -> None:
        """Copy a file of this machine here. Where the store is a folder of this machine, the file moves."""
        if self.folder is None:
            self._system.put_file(str(path), self._path(name))
            path.unlink()
            return
        os.replace(path, self.folder / name)
        sync_folder((self.folder / name).parent)

    def _path(self, name: str) -> str:
        return posixpath.join(self._root, name) if name else self._root


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _written(path: Path, content: bytes) -> Path:
    """A new file beside ``path``, on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    with partial.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return partial
