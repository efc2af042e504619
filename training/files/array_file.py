"""Arrays and a few words in one file that holds no code: safetensors with a checksum, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from training.errors import ArrayFileError
from training.files.whole_files import write_whole

SUFFIX: Final = ".safetensors"
_ABOUT, _SHA256 = "about", "sha256"
Array = NDArray[Any]


def write_arrays(path: Path, arrays: Mapping[str, Array], about: Mapping[str, object]) -> None:
    """Write arrays with a description.

    The file appears only when it is complete and on the disk; what was there before stays until then.

    Args:
        path: the file.
        arrays: by name; 0-d arrays are allowed.
        about: what the file is, as JSON; read back by ``read_arrays``.
    """
    ordered = {name: np.ascontiguousarray(arrays[name]).reshape(arrays[name].shape) for name in sorted(arrays)}
    words = json.dumps(about, sort_keys=True)
    write_whole(path, save(ordered, {_ABOUT: words, _SHA256: _digest(ordered, words)}))


def read_arrays(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read what ``write_arrays`` wrote: the arrays and their description.

    Raises:
        ArrayFileError: the file is missing, is of another kind, or does not match its checksum.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            words = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except (OSError, SafetensorError) as error:
        raise ArrayFileError(f"{path} cannot be read: {error}") from error
    if _ABOUT not in words or words.get(_SHA256) != _digest(arrays, words[_ABOUT]):
        raise ArrayFileError(f"{path} does not match its checksum: it was changed or damaged. Delete it, and it is made again.")
    return arrays, json.loads(words[_ABOUT])


def _digest(arrays: Mapping[str, Array], words: str) -> str:
    digest = hashlib.sha256(words.encode())
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
