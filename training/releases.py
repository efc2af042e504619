"""Write a release: ``releases/<id>/release.json``, the index, the model's metadata and its card."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.common.releases import INDEX_FILE, RELEASE_FILE, SERVED_BY, Index, Release, ReleaseStore, sha256_of
from training.evaluation.metrics import Interval


@dataclass(frozen=True)
class ReleaseParts:
    """All that a release says of itself; see ``services.common.releases.Release``."""

    id: str
    system: str
    title: str
    detects: str
    side: int
    model: str
    onnx: Path
    library: Path
    preprocessing: Mapping[str, object]
    calibration: Mapping[str, object]
    decision: Mapping[str, object]
    data: Mapping[str, str]
    figures: Mapping[str, Interval | float]
    limits: tuple[str, ...]
    architecture: str
    training: Mapping[str, object]


def write_release(parts: ReleaseParts, releases: Path, model_repository: Path) -> Release:
    """Write the release, make it the current one of its system, and check the whole store.

    Raises:
        services.common.errors.BrokenReleaseError: what was written does not pass the check that serving makes.
    """
    served = {"file": parts.onnx.name, "sha256": sha256_of(parts.onnx)}
    model = {"model": parts.model, "version": int(parts.onnx.parent.name), "files": dict.fromkeys(SERVED_BY, served)}
    content = {
        "id": parts.id,
        "system": parts.system,
        "title": parts.title,
        "detects": parts.detects,
        "input": {"kind": "registered_sharpened", "side": parts.side},
        "network": model,
        "embedder": model,
        "library": {"file": parts.library.name, "sha256": sha256_of(parts.library)},
        "preprocessing": parts.preprocessing,
        "calibration": parts.calibration,
        "decision": parts.decision,
        "data": parts.data,
        "figures": [_figure(name, value) for name, value in parts.figures.items()],
        "limits": parts.limits,
        "created": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    release = Release.model_validate(content)
    _write_json(releases / parts.id / RELEASE_FILE, release.model_dump(mode="json"))
    _write_json(releases / INDEX_FILE, _updated_index(releases / INDEX_FILE, release).model_dump(mode="json"))
    folder = model_repository / parts.model
    _write_json(folder / "metadata.json", {"release": parts.id, "architecture": parts.architecture, "training": parts.training, **content})
    (folder / "MODEL_CARD.md").write_text(_card(parts, release), encoding="utf-8")
    ReleaseStore(releases, model_repository)
    return release


def _figure(name: str, value: Interval | float) -> dict[str, object]:
    if isinstance(value, Interval):
        return {"name": name, "value": round(value.value, 4), "low": round(value.low, 4), "high": round(value.high, 4)}
    return {"name": name, "value": float(f"{value:.4g}")}


def _updated_index(path: Path, release: Release) -> Index:
    if not path.exists():
        return Index(default=release.id, current={release.system: release.id})
    index = Index.model_validate_json(path.read_bytes())
    return Index(default=index.default, current={**index.current, release.system: release.id})


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)


def _card(parts: ReleaseParts, release: Release) -> str:
    def row(name: str, value: float, low: float | None, high: float | None) -> str:
        return f"| {name} | {value:.4f} | {'' if low is None else f'{low:.4f} to {high:.4f}'} |"

    return "\n".join(
        [
            f"# {parts.model}",
            "",
            release.title,
            "",
            "**A research demonstration, not a medical device.** The weights and the reference library may be used for research only;",
            "see `LICENSE-WEIGHTS.md`.",
            "",
            f"- Release: `{release.id}`, detects `{release.detects}`",
            f"- Architecture: {parts.architecture}",
            f"- Input: uint8 NHWC, {parts.side} x {parts.side}, {release.input.kind}; normalisation and temperature are in the graph",
            "- Outputs: logits (normal, blast), embedding, patch embeddings",
            "",
            "## Data",
            "",
            *[f"- {name}: {text}" for name, text in parts.data.items()],
            "",
            "## Figures (95 % interval by patient)",
            "",
            "| figure | value | interval |",
            "|---|---|---|",
            *[row(f.name, f.value, f.low, f.high) for f in release.figures],
            "",
            "## Limits",
            "",
            *[f"- {limit}" for limit in parts.limits],
            "",
        ]
    )
