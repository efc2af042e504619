"""The picture of the architecture is up to date."""

from __future__ import annotations

from xml.etree import ElementTree

from deploy.ci.architecture_picture import PICTURE, draw, training_floors
from services.common.parts import PARTS
from tests.paths import ROOT


def test_the_picture_is_not_stale() -> None:
    assert PICTURE.read_text(encoding="utf-8") == draw(), "run: python -m deploy.ci.architecture_picture"


def test_it_shows_every_part_every_call_and_every_floor_once() -> None:
    root = ElementTree.fromstring(draw())
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert all(texts.count(name) == 1 for name in PARTS)
    assert sum(1 for _ in root.iter("{http://www.w3.org/2000/svg}line")) == 1 + sum(len(part.calls) for part in PARTS.values())
    rooms = {path.name for path in (ROOT / "training").iterdir() if (path / "__init__.py").exists()} | {"command", "errors"}
    assert {name for floor in training_floors() for name in floor.split(" | ")} == rooms
    assert all(floor.replace(" | ", ", ") in texts for floor in training_floors())
