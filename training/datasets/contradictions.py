"""The same picture with two labels, or of two patients: no network may learn from it, and no figure may be drawn from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from services.common.image_files import shown
from training.datasets.dataset import GroupKind
from training.errors import DatasetError

_PEOPLE: Final = (GroupKind.PATIENT, GroupKind.SUBJECT)
_MOST_SHOWN: Final = 5


class Said(NamedTuple):
    """What a data set says of one image: its name, 1 blast, 0 normal or None, and its group."""

    name: str
    is_blast: int | None
    group: str


def refuse_contradictions(said: Sequence[Said], digests: Sequence[str], grouped_by: GroupKind, dataset: str) -> None:
    """Refuse images that are the same and of which different things are said.

    Args:
        said: of each image.
        digests: equal where images are the same, by their files or by their pixels; empty where nothing is known.
        grouped_by: what groups are; that one picture is in two groups matters where these are people.
        dataset: its name, for the message.

    Raises:
        DatasetError: a picture stands as blast and as normal, or for two patients; the message names both files.
    """
    first: dict[str, list[Said]] = {}
    found = []
    for one, digest in zip(said, digests, strict=True):
        if not digest:
            continue
        known = first.setdefault(digest, [])
        faults = ((other, fault) for other in known if (fault := _fault(other, one, grouped_by)))
        if (met := next(faults, None)) is not None:
            found.append(f"  {shown(met[0].name)} and {shown(one.name)}: {met[1]}")
        elif one not in known:
            known.append(one)
    if found:
        more = f"\n  and {len(found) - _MOST_SHOWN} more" if len(found) > _MOST_SHOWN else ""
        listed = "\n".join(found[:_MOST_SHOWN])
        raise DatasetError(
            f"{dataset}: the same picture stands twice and is contradicted; put it right or take it out of the labels.\n{listed}{more}"
        )


def _fault(one: Said, other: Said, grouped_by: GroupKind) -> str:
    if {one.is_blast, other.is_blast} == {0, 1}:
        return "once a blast, once normal"
    if grouped_by in _PEOPLE and one.group != other.group:
        return f"of {shown(one.group)} and of {shown(other.group)}"
    return ""
