"""Releases: what belongs together, read from ``releases/<id>/release.json`` and checked against its checksums."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Final, Self, TypeVar

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from services.common.cell_classes import CLASSES, NOTHING, PATCH_LABELS
from services.common.checksums import BeingCheckedError, Checksums
from services.common.errors import BrokenReleaseError, ConfigurationError, FailedPreconditionError, NotFoundError
from services.common.home import HOME_VARIABLE, MODEL_REPOSITORY, RELEASES

_log = structlog.get_logger("dl4all")
RELEASE_FILE: Final = "release.json"
RELEASE_ID: Final = r"^[a-z0-9][a-z0-9._-]{0,63}$"
INDEX_FILE: Final = "index.json"
_RETRY_SECONDS: Final = 1.0
"""Seconds between two readings of a refused index by requests: the release that it names may be added after it."""
_WHERE: Final = (
    f"Set {HOME_VARIABLE} to the folder that holds {RELEASES}/ and {MODEL_REPOSITORY}/, such as a checkout,"
    " or DL4ALL_RELEASES and DL4ALL_MODEL_REPOSITORY to the two folders."
)
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Parsed = TypeVar("Parsed", bound=BaseModel)


class Role(StrEnum):
    """Hardware of an engine; it selects the file of a model that the engine serves."""

    CPU = "cpu"
    GPU = "gpu"


class Detects(StrEnum):
    """Cells that the network of a release was trained to detect."""

    LYMPHOBLAST = "lymphoblast"
    BLAST_LINEAGE_UNSPECIFIED = "blast_lineage_unspecified"


class InputKind(StrEnum):
    """Input of the networks of a release."""

    REGISTERED_SHARPENED = "registered_sharpened"
    REGISTERED = "registered"
    PATCH = "patch"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class File(_Part):
    """A file with its checksum; the path is relative to the folder that the field names."""

    file: str
    sha256: Sha256


class Model(_Part):
    """An exported network in the model repository."""

    model: str
    version: int = Field(ge=1)
    files: dict[Role, File]
    """Served file by role of the engine, relative to the version folder."""

    @model_validator(mode="after")
    def _every_role_has_a_file(self) -> Self:
        if missing := set(Role) - set(self.files):
            raise ValueError(f"files must name a file for {', '.join(sorted(missing))}")
        return self


class Input(_Part):
    """Input of the networks: kind and side in px."""

    kind: InputKind
    side: int = Field(ge=32, le=1024)


class Preprocessing(_Part):
    """Focus parameters as functions of the upscaling factor; see ``services.preprocessing.unsharpening``."""

    upscale_factors: tuple[float, ...] = Field(min_length=1)
    thresholds: tuple[float, ...] = Field(min_length=1)
    limits: tuple[float, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _knots_fit(self) -> Self:
        if not len(self.upscale_factors) == len(self.thresholds) == len(self.limits):
            raise ValueError("upscale_factors, thresholds and limits must be of one length")
        if not _ascending(self.upscale_factors):
            raise ValueError("upscale_factors must ascend")
        return self


class Calibration(_Part):
    """Numbers fitted on calibration patients.

    Attributes:
        temperature: divides the logits; part of the exported graph, kept here for the record.
        voting_neighbours: k of the vote.
        network_weight: weight of the network in the fused probability; the vote has the rest.
        coverage: nominal coverage of the prediction sets, per class.
        min_probability: per class, the smallest fused probability of that class that keeps it in the prediction set.
        max_disagreement: above this |network - vote| the two disagree.
        min_nothing: softmax probability of no cell from which on a cell is indeterminate, where the network learned that class; not calibrated.
        nearest_distances: distances to the nearest reference at evenly spaced quantiles 0..1 of calibration cells.
    """

    temperature: float = Field(gt=0.0)
    voting_neighbours: int = Field(ge=1)
    network_weight: Share
    coverage: Share
    min_probability: dict[str, Share]
    max_disagreement: Share
    min_nothing: Share = 0.5
    nearest_distances: tuple[float, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _numbers_fit(self) -> Self:
        if set(self.min_probability) != set(CLASSES):
            raise ValueError("min_probability must name normal and blast")
        if list(self.nearest_distances) != sorted(self.nearest_distances):
            raise ValueError("nearest_distances must not descend")
        return self


class DecisionRule(_Part):
    """Numbers of the decision per image.

    Attributes:
        false_blasts: pairs (number of cells, 99th percentile of falsely suspected cells at that number), ascending,
            resampled by calibration patient; between two entries the larger holds.
        min_cells_for_negative: cells that NO_BLASTS_SEEN needs.
        max_fraction_for_negative: upper bound of the blast fraction that NO_BLASTS_SEEN needs.
        origin: where each number comes from, in words.
    """

    false_blasts: tuple[tuple[int, int], ...] = Field(min_length=1)
    min_cells_for_negative: int = Field(ge=1)
    max_fraction_for_negative: Share
    origin: dict[str, str]

    @model_validator(mode="after")
    def _table_fits(self) -> Self:
        if not _ascending([0, *(count for count, _ in self.false_blasts)]) or any(quantile < 0 for _, quantile in self.false_blasts):
            raise ValueError("false_blasts must ascend from at least one cell, without negative numbers")
        return self


class Patches(_Part):
    """How patches of a field are judged: whether they show blasts or other nucleated cells, and where.

    Attributes:
        network: takes ``images``, uint8 (N, side, side, 3); gives calibrated ``logits`` (N, 2), blast present and other nucleated cell present, and
            ``class_activations`` (N, h, w, 2); the logits are their mean over places.
        side: side of the network's input in px.
        patch_side: side of a patch in px of a field of nominal scale.
        overlap: share of the side that neighbouring patches have in common.
        nominal_red_cell_radius: radius of the red cells, px, in a field of nominal scale; in others the patch side is scaled with it.
        min_probability: per label, the least probability at which it is given to a patch.
        min_activation: the least class activation, a logit, of a peak that is a candidate for a cell.
        suppression_radius: peaks nearer than this are one cell, in shares of the patch side in the field.
    """

    network: Model
    side: int = Field(ge=32, le=1024)
    patch_side: int = Field(ge=32, le=4096)
    overlap: float = Field(ge=0.0, lt=1.0)
    nominal_red_cell_radius: float = Field(gt=0.0)
    min_probability: dict[str, Share]
    min_activation: float
    suppression_radius: float = Field(gt=0.0, le=1.0)

    @model_validator(mode="after")
    def _labels_are_known(self) -> Self:
        if set(self.min_probability) != set(PATCH_LABELS):
            raise ValueError("min_probability must name blast and other")
        return self


class Figure(_Part):
    """A measured figure with its 95 % interval by patient, where there is one."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None


class Release(_Part):
    """A release; see ``docs/releases.md`` for the fields."""

    id: str = Field(pattern=RELEASE_ID)
    system: str
    title: str
    detects: Detects
    input: Input
    network: Model
    embedder: Model
    library: File
    preprocessing: Preprocessing
    calibration: Calibration
    decision: DecisionRule
    patches: Patches | None = None
    locator: Model | None = None
    """Finds the cells: takes ``images``, uint8 (N, h, w, 3), and gives ``maps``; None where that of the index serves it."""
    classes: tuple[str, ...] = CLASSES
    """Columns of the network's logits: normal, blast and, where it was injected, nothing."""
    class_activations: bool = False
    """Whether the network gives class activations; its logits are their mean over places."""
    data: dict[str, str]
    figures: tuple[Figure, ...]
    limits: tuple[str, ...]
    created: str

    @model_validator(mode="after")
    def _classes_are_known(self) -> Self:
        if self.classes not in (CLASSES, (*CLASSES, NOTHING)):
            raise ValueError("classes must be normal, blast and at most nothing")
        return self

    @property
    def models(self) -> tuple[Model, ...]:
        """All networks that it names."""
        return (self.network, self.embedder, *(() if self.patches is None else (self.patches.network,)))


class Index(_Part):
    """The release for a request that names a system, or no release; and the locator of releases that name none, if there is one."""

    default: str
    current: dict[str, str]
    locator: Model | None = None


class ReleaseStore:
    """The releases that this service holds, each checked once.

    A release that is added later is taken in at the first request for it or at the next ``take_in``. A changed index is taken in when a name is
    next resolved or at the next ``take_in``. A broken release or index is logged, left out and tried again the next time; the one in use stays in
    use. A release that was handed out stays valid, because a held release is not read again: a later change of it, such as a new limit, takes
    effect at the next start. Large files are checked in threads: until that is done their release counts as not there. A file that does not match its
    checksum is not read again before it has changed.

    Args:
        releases: folder of releases.
        model_repository: folder of models that the releases name.

    Raises:
        ConfigurationError: one of the folders is not there.
        BrokenReleaseError: a release is incomplete, malformed or does not match its checksums.
    """

    def __init__(self, releases: Path, model_repository: Path) -> None:
        if not (releases.is_dir() and model_repository.is_dir()):
            raise ConfigurationError("RELEASES_NOT_FOUND", _no_releases(releases, model_repository))
        self._folder = releases
        self._model_repository = model_repository
        self._checksums = Checksums(lambda path: sha256_of(path))
        self._refused: dict[str, str] = {}
        self._releases = {r.id: r for r in map(self._read, sorted(releases.glob(f"*/{RELEASE_FILE}")))}
        self._stamp = self._index_stamp()
        self._refused_stamp, self._retry_at = (0, 0, 0), 0.0
        self.index = self._read_index()

    @property
    def releases(self) -> tuple[Release, ...]:
        """All releases that are held, by id."""
        return tuple(self._releases.values())

    def resolve(self, name: str) -> Release:
        """Find the release that a caller means.

        Args:
            name: release id, system name, or empty for the default.

        Raises:
            NotFoundError: neither a release nor a system has this name.
        """
        self._take_new_index()
        release = self._find(self.index.current.get(name, name) if name else self.index.default)
        if release is None:
            known = ", ".join([*self.index.current, *self._releases])
            raise NotFoundError("RELEASE_UNKNOWN", f"No release or system is called {name!r}; known: {known}.", field="release")
        return release

    def take_in(self) -> None:
        """Take in releases and an index that were added since."""
        for path in sorted(self._folder.glob(f"*/{RELEASE_FILE}")):
            self._find(path.parent.name)
        self._retry_at = 0.0
        self._take_new_index()

    def held(self, release_id: str) -> Release:
        """The release with this id.

        Raises:
            FailedPreconditionError: this service does not hold it.
        """
        release = self._find(release_id)
        if release is None:
            raise FailedPreconditionError("RELEASE_NOT_HELD", f"This service does not hold the release {release_id!r}.", field="release")
        return release

    def locator(self, release_id: str) -> Model | None:
        """The network that finds the cells for a release; for an empty id, and for a release that names none, that of the index.

        Returns:
            None where neither names one: cells are then found by the stain alone.

        Raises:
            FailedPreconditionError: this service does not hold the release.
        """
        own = self.held(release_id).locator if release_id else None
        return own or self.index.locator

    def _find(self, release_id: str) -> Release | None:
        """The release with this id, taken in now if it was added since; None where there is none, it is broken, or its files are still being checked."""
        if release_id in self._releases or re.fullmatch(RELEASE_ID, release_id) is None:
            return self._releases.get(release_id)
        path = self._folder / release_id / RELEASE_FILE
        if not path.is_file():
            return None
        try:
            release = self._releases[release_id] = self._read(path, wait=False)
        except BeingCheckedError:
            return None
        except BrokenReleaseError as error:
            if self._refused.get(release_id) != error.message:
                _log.error("release refused", release=release_id, cause=error.message)
            self._refused[release_id] = error.message
            return None
        _log.info("release taken in", release=release_id)
        return release

    def _take_new_index(self) -> None:
        stamp = self._index_stamp()
        if stamp == self._stamp or (stamp == self._refused_stamp and time.monotonic() < self._retry_at):
            return
        try:
            index = self._read_index()
        except BrokenReleaseError as error:
            if self._refused.get(INDEX_FILE) != error.message:
                _log.error("index refused", cause=error.message, default=self.index.default)
            self._refused[INDEX_FILE] = error.message
            self._refused_stamp, self._retry_at = stamp, time.monotonic() + _RETRY_SECONDS
            return
        self._refused.pop(INDEX_FILE, None)
        self._stamp, self.index = stamp, index
        _log.info("index taken in", default=index.default, current=index.current)

    def _index_stamp(self) -> tuple[int, int, int]:
        try:
            found = (self._folder / INDEX_FILE).stat()
        except OSError:
            return (0, 0, 0)
        return (found.st_mtime_ns, found.st_size, found.st_ino)

    def _read_index(self) -> Index:
        if not (self._folder / INDEX_FILE).is_file():
            raise BrokenReleaseError("RELEASE_BROKEN", f"{(self._folder / INDEX_FILE).resolve()} is missing: these are no releases. {_WHERE}")
        index = _parse(Index, self._folder / INDEX_FILE)
        for path, sha256 in () if index.locator is None else self._files_of(index.locator):
            self._checksums.check(path, sha256, wait=True)
        for name in (index.default, *index.current.values()):
            if self._find(name) is None:
                raise BrokenReleaseError("RELEASE_BROKEN", f"{INDEX_FILE} names the release {name!r}, which is not there.")
        return index

    def library_path(self, release: Release) -> Path:
        """Path of the release's reference library."""
        return self._folder / release.id / release.library.file

    def model_path(self, model: Model, role: Role = Role.CPU) -> Path:
        """Path of the file that an engine of a role serves."""
        return self._model_repository / model.model / str(model.version) / model.files[role].file

    def _read(self, path: Path, *, wait: bool = True) -> Release:
        release = _parse(Release, path)
        if release.id != path.parent.name:
            raise BrokenReleaseError("RELEASE_BROKEN", f"{path} calls itself {release.id!r}.")
        files = [(path.parent / release.library.file, release.library.sha256)]
        for model in (*release.models, *(() if release.locator is None else (release.locator,))):
            files += self._files_of(model)
        for file in files:
            self._checksums.check(*file, wait=wait)
        return release

    def _files_of(self, model: Model) -> list[tuple[Path, str]]:
        return [(self._model_repository / model.model / str(model.version) / f.file, f.sha256) for f in model.files.values()]


def _no_releases(releases: Path, model_repository: Path) -> str:
    missing = releases if not releases.is_dir() else model_repository
    return f"There is no folder {missing.resolve()}. {_WHERE}"


def _ascending(numbers: Sequence[float]) -> bool:
    return all(a < b for a, b in pairwise(numbers))


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parse(kind: type[Parsed], path: Path) -> Parsed:
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise BrokenReleaseError("RELEASE_BROKEN", f"{path} cannot be read: {error}") from error
