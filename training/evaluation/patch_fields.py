"""Whole fields judged by a released network of patches: false alarms on healthy ones, cells found in boxes, a stress test.

    dl4all study patch-fields --data DIR [--release all_idb_patches]

``bccd_fields`` and ``chula_fields`` show healthy blood: every patch with a blast is a false alarm. ``aria_fields`` has no patients and its
classes differ in colour: it shows what the network does elsewhere and is evidence of nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from services.common.cell_classes import BLAST
from services.common.engines.onnx_runtime import open_session
from services.common.image_codec import decode_image
from services.common.releases import Patches, ReleaseStore
from services.patching.cells import locate_cells
from services.patching.grid import Patch, lay_grid
from training.command import explained, program_parser
from training.datasets.fields import Field, read_aria_fields, read_bccd_fields, read_chula_fields
from training.releases.patch_location import BLAST_LABEL, judge_field


def scaled_grid(rgb: NDArray[np.uint8], how: Patches) -> tuple[Patch, ...]:
    """The grid of a field at the scale of its red cells, borders covered; the nominal scale where none are seen."""
    height, width = rgb.shape[:2]
    seen = locate_cells(rgb).red_cell_radius or how.nominal_red_cell_radius
    side = round(how.patch_side * seen / how.nominal_red_cell_radius)
    return lay_grid(width, height, int(np.clip(side, 32, min(height, width))), how.overlap, flush=True)


def score_healthy(name: str, fields: Sequence[Field], session: Any, how: Patches) -> list[str]:
    """False alarms and boxes found, as lines of text."""
    alarms, patches, alarmed, hits, as_blast, found, truth = 0, 0, 0, 0, 0, 0, 0
    for field in track(fields, name):
        rgb = decode_image(field.path.read_bytes()).pixels
        judged = judge_field(session, rgb, scaled_grid(rgb, how), how.side)
        blast = judged.probabilities[:, BLAST_LABEL] >= how.min_probability[BLAST]
        located = judged.located(how.suppression_radius, how.min_activation)
        alarms, patches, alarmed = alarms + int(blast.sum()), patches + len(blast), alarmed + bool(blast.any())
        free = list(located)
        for box in field.boxes:
            inside = next((p for p in free if box.contains(p.x, p.y)), None)
            if inside is not None:
                free.remove(inside)
                hits, as_blast = hits + 1, as_blast + (inside.label == BLAST_LABEL)
        found, truth = found + len(located), truth + len(field.boxes)
    return [
        f"{name}: blast present in {alarms / patches:.3f} of the patches ({alarms}/{patches}), "
        f"in {alarmed / len(fields):.3f} of the fields ({alarmed}/{len(fields)})",
        f"{name}: boxes found {hits / truth:.3f} ({hits}/{truth}), as blast {as_blast}; precision {hits / max(1, found):.3f} ({hits}/{found})",
    ]


def score_stress(root: Path, session: Any, how: Patches) -> list[str]:
    """Share of the fields of each subclass with a patch in which a blast is present, as lines of text."""
    shown: dict[str, list[bool]] = {}
    for image in track(read_aria_fields(root).images, "aria_fields"):
        rgb = decode_image(image.path.read_bytes()).pixels
        judged = judge_field(session, rgb, scaled_grid(rgb, how), how.side)
        shown.setdefault(image.classes[0], []).append(bool((judged.probabilities[:, BLAST_LABEL] >= how.min_probability[BLAST]).any()))
    return [f"aria_fields, {name}: blast present in {np.mean(flags):.3f} of the fields ({sum(flags)}/{len(flags)})" for name, flags in shown.items()]


@explained
def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures."""
    parser = program_parser("patch-fields", __doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds bccd_fields, chula_fields and aria_fields")
    parser.add_argument("--release", default="all_idb_patches", help="release or system")
    parser.add_argument("--releases", type=Path, default=Path("releases"))
    parser.add_argument("--model-repository", type=Path, default=Path("model_repository"))
    given = parser.parse_args(arguments)
    store = ReleaseStore(given.releases, given.model_repository)
    how = store.resolve(given.release).patches
    if how is None:
        raise SystemExit(f"failed: the release {given.release!r} has no network of patches.")
    session = open_session(store.model_path(how.network), threads=1)
    lines = score_healthy("bccd_fields", read_bccd_fields(given.data / "bccd_fields"), session, how)
    lines += score_healthy("chula_fields", read_chula_fields(given.data / "chula_fields"), session, how)
    lines += score_stress(given.data / "aria_fields", session, how)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
