"""What a release says of images of other sources, cell by cell and image by image: a stress test, not evidence.

python -m training.evaluation.sources --data DIR [--per-folder 5]
"""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from pathlib import Path

import numpy as np
from rich.progress import track

from dl4all.diagnosis.v1 import diagnosis_pb2
from services.common.logs import configure_logs
from services.common.settings import CommonSettings
from services.embedded import embedded_services

SOURCES = {
    "bccd_fields": "bccd_fields/JPEGImages",
    "chula_fields": "chula_fields/images",
    "aria_fields, Benign": "aria_fields/Benign",
    "aria_fields, Early": "aria_fields/Early",
    "aria_fields, Pre": "aria_fields/Pre",
    "aria_fields, Pro": "aria_fields/Pro",
}


async def score(data: Path, per_folder: int) -> None:
    """Diagnose evenly spaced images of every source and print what is said of them."""
    async with embedded_services(CommonSettings()) as services:
        for name, folder in SOURCES.items():
            paths = sorted(p for p in (data / folder).iterdir() if p.suffix.lower() in {".jpg", ".png", ".jpeg"})
            chosen = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, per_folder).astype(int))]
            findings: Counter[str] = Counter()
            reasons: Counter[str] = Counter()
            cells = suspected = undecided = 0
            for path in track(chosen, description=name, transient=True):
                request = diagnosis_pb2.DiagnoseRequest(image=path.read_bytes())
                diagnosis = (await services.stubs["gateway"].Diagnose(request, timeout=60)).diagnosis
                findings[diagnosis_pb2.Finding.Name(diagnosis.finding).removeprefix("FINDING_")] += 1
                cells += diagnosis.counts.total
                suspected += diagnosis.counts.suspected
                undecided += diagnosis.counts.indeterminate
                reasons.update(r for c in diagnosis.cells for r in c.reasons)
            shown = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common(5))
            print(f"{name}: {len(chosen)} images, {dict(findings)}; {cells} cells: {suspected} suspected, {undecided} undecided; {shown}")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the sources")
    parser.add_argument("--per-folder", type=int, default=29)
    given = parser.parse_args()
    configure_logs("ERROR")
    asyncio.run(score(given.data, given.per_folder))


if __name__ == "__main__":
    main()
