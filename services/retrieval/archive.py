"""Read the arrays of an ``.npz`` file without copying: uncompressed arrays are mapped into memory. Replicas share them, and opening is quick."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

_LOCAL_HEADER: Final = struct.Struct("<4s5H3I2H")
_LOCAL_MAGIC: Final = b"PK\x03\x04"
_SUFFIX: Final = ".npy"


def map_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an archive by name, read-only.

    Args:
        path: of a file that ``numpy.savez`` (mapped) or ``numpy.savez_compressed`` (read into memory) wrote.

    Raises:
        OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error: the file is no archive, or it is damaged.
    """
    arrays: dict[str, NDArray[Any]] = {}
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for member in archive.infolist():
            if not member.filename.endswith(_SUFFIX):
                raise ValueError(f"{member.filename} is no array")
            name = member.filename.removesuffix(_SUFFIX)
            if member.compress_type == zipfile.ZIP_STORED:
                arrays[name] = _mapped(path, file, member)
            else:
                with archive.open(member) as stream:
                    arrays[name] = npy.read_array(stream, allow_pickle=False)
                arrays[name].flags.writeable = False
    return arrays


def _mapped(path: Path, file: Any, member: zipfile.ZipInfo) -> NDArray[Any]:
    file.seek(member.header_offset)
    magic, *_, name_length, extra_length = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    if magic != _LOCAL_MAGIC:
        raise zipfile.BadZipFile("a member is not where the directory says")
    start = member.header_offset + _LOCAL_HEADER.size + name_length + extra_length
    file.seek(start)
    version = npy.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = npy.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = npy.read_array_header_2_0(file)
    else:
        raise ValueError(f"array format {version} is not read")
    if dtype.hasobject:
        raise ValueError("arrays of objects are not read")
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if file.tell() + size > start + member.file_size:
        raise ValueError("an array is longer than its member")
    if size == 0:
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype, "r", file.tell(), shape, "F" if fortran else "C")
