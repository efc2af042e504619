"""Draw the architecture from the project's own tables: the parts of a stack and the floors of training.

    python -m deploy.ci.architecture_picture

Writes ``docs/pictures/architecture.svg``. A test fails when the picture is out of date.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final

from services.common.parts import PARTS

ROOT: Final = Path(__file__).resolve().parents[2]
PICTURE: Final = ROOT / "docs" / "pictures" / "architecture.svg"
_WIDTH, _HEIGHT = 1040, 640
_BOX_HEIGHT: Final = 46
_SERVING_WIDTH: Final = 656
_INK, _LINE, _OUTSIDE, _INSIDE, _FLOOR = "#1d2733", "#6b7a8c", "#d8e8f7", "#eef2f6", "#f7f1e1"
_SAYS: Final = {
    "gateway": "composes, and decides",
    "patching": "finds the cells, cuts crops",
    "preprocessing": "registers, sharpens",
    "classification": "runs the networks",
    "retrieval": "nearest known cells",
    "triton": "or ONNX Runtime",
}
_FLOORS_SAY: Final = {
    "evaluation": "programs that measure and draw",
    "releases": "gates, calibration, library, files of a release",
    "runs": "one training: folds, folders, reports",
    "export": "networks as ONNX, lighter files",
    "learning": "one training loop, losses, augmentation",
    "metrics": "figures with intervals by patient",
    "crops": "from images to crops and packs",
    "recipes": "what a recipe may say; one TOML each",
    "architectures | datasets": "networks; readers and splits by patient",
    "command | files": "how programs start; files that are whole or not there",
    "errors": "what a user can put right",
}


@dataclass(frozen=True)
class _Box:
    x: int
    y: int
    width: int
    title: str
    says: str = ""
    fill: str = _INSIDE

    @property
    def middle(self) -> int:
        return self.x + self.width // 2

    def svg(self) -> str:
        title_y = self.y + (19 if self.says else 28)
        says = f'<text x="{self.middle}" y="{self.y + 36}" class="says">{escape(self.says)}</text>' if self.says else ""
        return (
            f'<rect x="{self.x}" y="{self.y}" width="{self.width}" height="{_BOX_HEIGHT}" rx="6" fill="{self.fill}" stroke="{_LINE}"/>'
            f'<text x="{self.middle}" y="{title_y}" class="title">{escape(self.title)}</text>{says}'
        )


def training_floors() -> list[str]:
    """Floors of ``training``, the highest first, as import-linter holds them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    (floors,) = (contract["layers"] for contract in contracts if contract.get("containers") == ["training"])
    return list(floors)


def draw() -> str:
    """The picture as SVG."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="Helvetica, Arial, sans-serif" fill="{_INK}">',
            "<style>text{text-anchor:middle} .title{font-size:15px;font-weight:bold} .says{font-size:11.5px} .head{font-size:17px;font-weight:bold}"
            " .note{font-size:12px}</style>",
            f'<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
            f'<path d="M0 0L8 4L0 8z" fill="{_LINE}"/></marker></defs>',
            f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
            *_serving(),
            *_training(),
            "</svg>\n",
        ]
    )


def _serving() -> list[str]:
    boxes = {"callers": _Box(8 + (_SERVING_WIDTH - 200) // 2, 56, 200, "callers", "LIS, batch, dl4all, SDK", _OUTSIDE)}
    inner = [part for part in PARTS.values() if part.is_service and not part.faces_outside]
    outside = [part for part in PARTS.values() if part.faces_outside]
    width = (_SERVING_WIDTH + 8) // len(inner) - 8
    for part in PARTS.values():
        if part.faces_outside:
            boxes[part.name] = _Box(
                8 + (_SERVING_WIDTH - 200) // 2 + 216 * outside.index(part), 152, 200, part.name, _SAYS.get(part.name, ""), _OUTSIDE
            )
        elif part.is_service:
            boxes[part.name] = _Box(8 + inner.index(part) * (width + 8), 262, width, part.name, _SAYS.get(part.name, ""))
        else:
            boxes[part.name] = _Box(340, 372, width, part.name, _SAYS.get(part.name, ""))
    arrows = [_arrow(boxes["callers"], boxes[part.name]) for part in PARTS.values() if part.faces_outside]
    arrows += [_arrow(boxes[part.name], boxes[called]) for part in PARTS.values() for called in part.calls]
    floor = _Box(8, 462, _SERVING_WIDTH, "services/common", "servers, settings, errors, telemetry, image codec, engines, releases", _FLOOR)
    store = _Box(8, 540, _SERVING_WIDTH, "releases/ and model_repository/", "what belongs together, with checksums; found in DL4ALL_HOME", _FLOOR)
    heading = '<text x="336" y="32" class="head">Serving: one process, or one a part</text>'
    note = '<text x="336" y="620" class="note">An arrow: calls. Services never import each other; all import services/common below them.</text>'
    return [heading, *arrows, *(box.svg() for box in (*boxes.values(), floor, store)), note]


def _training() -> list[str]:
    floors = training_floors()
    boxes = [_Box(712, 56 + 50 * i, 320, name.replace(" | ", ", "), _FLOORS_SAY.get(name, "")) for i, name in enumerate(floors)]
    heading = '<text x="872" y="32" class="head">training: from images to a release</text>'
    note = '<text x="872" y="620" class="note">A layer imports from those below it, never from above.</text>'
    return [heading, *(box.svg() for box in boxes), note]


def _arrow(above: _Box, below: _Box) -> str:
    return (
        f'<line x1="{above.middle}" y1="{above.y + _BOX_HEIGHT}" x2="{below.middle}" y2="{below.y - 2}" stroke="{_LINE}" stroke-width="1.4" '
        'marker-end="url(#tip)"/>'
    )


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
