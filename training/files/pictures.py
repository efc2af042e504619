"""Pictures that are committed: the same figures give the same file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

COLOURS: Final = ("#1f6fb2", "#c4622d", "#3f8f4f", "#7a4fa3", "#6b6b6b", "#c43f7a", "#1b1b1b", "#b08a00")
"""Of what is compared in one picture, in this order."""


def save_svg(figure: Any, path: Path) -> None:
    """Write a figure of matplotlib as SVG, without date, creator or random names."""
    import matplotlib

    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "dl4all"}):
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
