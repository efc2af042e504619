"""Cards of models: what they are, what they learned from, how good they are and where they fail."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from services.common.cell_classes import CLASSES

_LINE: Final = 120
_RESEARCH: Final = "**A research demonstration, not a medical device.** {what} may be used for research only; see `LICENSE-WEIGHTS.md`."


def model_card(metadata: Mapping[str, Any]) -> str:
    """The card of a model, written from its ``metadata.json`` and nothing else."""
    patches = metadata.get("patches")
    network = metadata["network"] if patches is None else patches["network"]
    blocks = [
        f"# {network['model']}",
        metadata["title"],
        _RESEARCH.format(what="The weights and the reference library"),
        *_bullets(
            [
                f"Release: `{metadata['id']}`, detects `{metadata['detects']}`",
                f"Architecture: {metadata['architecture']}",
                *(_cell_network(metadata) if patches is None else _patch_network(patches)),
                f"Served: {_served(network['files'])}",
            ]
        ),
        "## Data",
        *_bullets([f"{name}: {text}" for name, text in metadata["data"].items()]),
        "## Figures (95 % interval by patient)",
        _table(("figure", "value", "interval"), [(f["name"], _number(f["value"]), _interval(f)) for f in metadata["figures"]]),
        "## Limits",
        *_bullets(metadata["limits"]),
    ]
    return "\n\n".join(_wrapped(block) for block in blocks) + "\n"


def locator_card(metadata: Mapping[str, Any]) -> str:
    """The card of a locator, written from its ``metadata.json`` and nothing else."""
    files = metadata["locator"]["files"]
    blocks = [
        f"# {metadata['locator']['model']}",
        metadata["title"],
        _RESEARCH.format(what="The weights"),
        *_bullets(
            [
                f"Architecture: {metadata['architecture']}",
                f"Input: {metadata['input']}",
                f"Outputs: {metadata['output']}",
                f"Served: {_served(files)}",
            ]
        ),
        "## Data",
        *_bullets([f"{name}: {text}" for name, text in metadata["data"].items()]),
        "## Figures, of networks that have not seen the field",
        _table(("figure", "value"), [(name, text) for name, text in metadata["figures"].items()]),
        "## Limits",
        *_bullets(metadata["limits"]),
    ]
    return "\n\n".join(_wrapped(block) for block in blocks) + "\n"


def _bullets(items: Iterable[str]) -> tuple[str]:
    return ("\n".join(f"- {item}" for item in items),)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, ["--"] * len(heads), *rows))


def _wrapped(block: str) -> str:
    """Markdown as `make format` wraps it; rows of tables stay whole."""

    def wrap(line: str) -> str:
        indent = "  " if line.startswith("- ") else ""
        return textwrap.fill(line, _LINE, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)

    return "\n".join(line if line.startswith("|") else wrap(line) for line in block.split("\n"))


def _cell_network(metadata: Mapping[str, Any]) -> tuple[str, str]:
    given, classes = metadata["input"], ", ".join(metadata.get("classes", CLASSES))
    by_place = ", class activations (the logits are their mean over places)" if metadata.get("class_activations") else ""
    return (
        f"Input: uint8 NHWC, {given['side']} x {given['side']}, {given['kind']}; normalisation and temperature are in the graph",
        f"Outputs: logits ({classes}), embedding, place embeddings{by_place}",
    )


def _patch_network(given: Mapping[str, Any]) -> tuple[str, str]:
    return (
        f"Input: uint8 NHWC, {given['side']} x {given['side']}: a patch of {given['patch_side']} px of a field whose red cells have a radius of "
        f"{given['nominal_red_cell_radius']} px, scaled with them in others; normalisation and temperatures are in the graph",
        "Outputs: logits (blast present, other nucleated cell present), class activations (the logits are their mean over places)",
    )


def _served(files: Mapping[str, Mapping[str, str]]) -> str:
    return ", ".join(f"`{file['file']}` on {role.upper()}s" for role, file in files.items())


def _number(value: float) -> str:
    return f"{value:.4f}" if value == 0 or abs(value) >= 1e-3 else f"{value:.1e}"


def _interval(figure: Mapping[str, Any]) -> str:
    return "" if figure.get("low") is None else f"{figure['low']:.4f} to {figure['high']:.4f}"
