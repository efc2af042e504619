"""A pack: the crops of a data set at one side, with labels and groups, in one file. All that a training needs."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from training.datasets.dataset import GroupKind, ImageKind, Subset
from training.errors import ArrayFileError, TrainingError
from training.files.array_file import read_arrays, write_arrays

SUFFIX: Final = ".pack"
LOSSLESS: Final = 0
_KIND: Final = "pack 1"
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class PackHeader:
    """What all crops of a pack share.

    Attributes:
        dataset: name of the data set.
        kind: what the images show.
        classes: names of the columns of ``labels``.
        multi_label: whether an image may show any number of classes.
        grouped_by: what ``groups`` are.
        side: side of the crops in px.
        input: how crops were made, a value of ``InputKind``.
        center_crop: side of the central square that was cut out before resizing, px; 0 for the whole image.
        focus: focus parameters of the sharpening; None without it.
        jpeg_quality: 1..100, or ``LOSSLESS``.
        left_out: keys of images in which no cell was found.
        notes: what a user must know of the data.
        subject: what the crops show: the ``cell`` of each image, or ``nothing``: a position of it without a nucleated cell.
        threshold: how the focus threshold was chosen, see ``training.recipes.config.Input``; None where that is not known.
    """

    dataset: str
    kind: ImageKind
    classes: tuple[str, ...]
    multi_label: bool
    grouped_by: GroupKind
    side: int
    input: str
    center_crop: int = 0
    focus: dict[str, tuple[float, ...]] | None = None
    jpeg_quality: int = LOSSLESS
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    subject: str = "cell"
    threshold: str | None = None


@dataclass(frozen=True)
class Pack:
    """Crops in memory; all arrays share their first axis, of length N.

    Attributes:
        header: what all crops share.
        pixels: uint8 (N, side, side, 3).
        labels: int8 (N, K), 0 or 1.
        is_blast: int8 (N,), 1 blast, 0 normal, -1 ambiguous or not a cell.
        keys, groups, subsets, folds, sha256: str (N,); SHA-256 is that of the image file.
        measures: float32 (N,) by name: center_x, center_y, radius (px of the image), upscale_factor, focus_before,
            focus_after, accepted (0 or 1); empty for ``center_crop``.
    """

    header: PackHeader
    pixels: Pixels
    labels: NDArray[np.int8]
    is_blast: NDArray[np.int8]
    keys: NDArray[np.str_]
    groups: NDArray[np.str_]
    subsets: NDArray[np.str_]
    folds: NDArray[np.str_]
    sha256: NDArray[np.str_]
    measures: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)

    def select(self, chosen: NDArray[Any]) -> Pack:
        """Crops by index or mask, in that order."""
        columns = {name: getattr(self, name)[chosen] for name in ("pixels", "labels", "is_blast", *_WORDS)}
        return replace(self, **columns, measures={name: values[chosen] for name, values in self.measures.items()})

    @property
    def class_names(self) -> NDArray[np.str_]:
        """Class of each crop of a single-label pack, str (N,)."""
        return np.array(self.header.classes)[self.labels.argmax(axis=1)]

    def in_subset(self, *subsets: Subset) -> NDArray[np.bool_]:
        """Which crops belong to any of the subsets, bool (N,)."""
        return np.isin(self.subsets, [s.value for s in subsets])

    def digest(self) -> str:
        """SHA-256 of all that a training could learn from: crops, labels, groups, subsets."""
        header = {name: value for name, value in _header_json(self.header).items() if name != "threshold"}  # ``focus`` says what came of it
        digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
        for array in (self.pixels, self.labels, self.is_blast):
            digest.update(np.ascontiguousarray(array).data)
        digest.update("\n".join([*self.keys, *self.groups, *self.subsets, *self.folds]).encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


_WORDS: Final = ("keys", "groups", "subsets", "folds", "sha256")


def write_pack(pack: Pack, path: Path, jpeg_quality: int = LOSSLESS) -> None:
    """Write a pack; it appears whole or not at all.

    Args:
        pack: crops as prepared.
        path: the file.
        jpeg_quality: 1..100 keeps the file small and changes the pixels a little; ``LOSSLESS`` keeps them.

    Raises:
        TrainingError: the quality is out of range.
    """
    if not 0 <= jpeg_quality <= 100:
        raise TrainingError(f"A JPEG quality is 1..100, or 0 for lossless, not {jpeg_quality}.")
    header = replace(pack.header, jpeg_quality=jpeg_quality or pack.header.jpeg_quality)
    words = json.dumps({name: getattr(pack, name).tolist() for name in _WORDS}).encode()
    arrays: dict[str, NDArray[Any]] = {
        "labels": pack.labels,
        "is_blast": pack.is_blast,
        "words": np.frombuffer(zlib.compress(words, 9), np.uint8),
        **{f"measures/{name}": values for name, values in pack.measures.items()},
    }
    if jpeg_quality == LOSSLESS:
        arrays["pixels"] = pack.pixels
    else:
        encoded = _in_threads(lambda crop: _jpeg(crop, jpeg_quality), pack.pixels)
        arrays["encoded"] = np.concatenate(encoded) if encoded else np.zeros(0, np.uint8)
        arrays["lengths"] = np.array([len(e) for e in encoded], np.int64)
    write_arrays(path, arrays, {"file": _KIND, **_header_json(header)})


def read_pack(path: Path) -> Pack:
    """Read a pack into memory.

    Raises:
        ArrayFileError: the file is missing, damaged, or no pack.
    """
    arrays, about = read_arrays(path)
    if about.pop("file", None) != _KIND:
        raise ArrayFileError(f"{path} is not a pack of this version; make it with `dl4all data pack`.")
    header = _header(about)
    if "pixels" in arrays:
        pixels = arrays["pixels"]
    else:
        parts = np.split(arrays["encoded"], np.cumsum(arrays["lengths"])[:-1])
        pixels = np.stack(_in_threads(_pixels, parts)) if len(arrays["lengths"]) else np.zeros((0, header.side, header.side, 3), np.uint8)
    words = json.loads(zlib.decompress(arrays["words"].tobytes()))
    measures = {name.removeprefix("measures/"): a for name, a in arrays.items() if name.startswith("measures/")}
    columns = {name: np.array(words[name], dtype=np.str_) for name in _WORDS}
    return Pack(header, pixels, arrays["labels"], arrays["is_blast"], **columns, measures=measures)


def _header_json(header: PackHeader) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(json.dumps(asdict(header)))
    return content


def _header(content: dict[str, Any]) -> PackHeader:
    focus = content["focus"]
    return PackHeader(
        **{
            **content,
            "kind": ImageKind(content["kind"]),
            "grouped_by": GroupKind(content["grouped_by"]),
            "focus": None if focus is None else {name: tuple(values) for name, values in focus.items()},
            **{name: tuple(content[name]) for name in ("classes", "left_out", "notes")},
        }
    )


def _jpeg(crop: Pixels, quality: int) -> Pixels:
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    done, encoded = cv2.imencode(".jpg", cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise TrainingError("A crop could not be encoded.")
    return np.asarray(encoded, np.uint8).reshape(-1)


def _pixels(encoded: Pixels) -> Pixels:
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    if decoded is None:
        raise ArrayFileError("A crop of the pack cannot be decoded.")
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)


def _in_threads(function: Callable[[Pixels], Pixels], items: Any) -> list[Pixels]:
    with ThreadPoolExecutor() as pool:
        return list(pool.map(function, items))
