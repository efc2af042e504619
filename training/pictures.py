"""Pictures that are committed: the same figures give the same file."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def save_svg(figure: Any, path: Path) -> None:
    """Write a figure of matplotlib as SVG, without date, creator or random names."""
    import matplotlib

    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "dl4all"}):
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
