"""The stress test: fields of another hospital, far smaller than the training images, as specimens of a block each.

    dl4all study stress --data DIR/aria_fields [--release ID]

No patients are published, and neighbouring files are alike: twenty file numbers in a row are taken for a specimen, and all of a block
stay on one side of any split. What is found is shown beside what 18 statistics of the colours alone tell, cross-validated by block.
Evidence of nothing but robustness: see the README of the data.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from rich.progress import Progress

from dl4all.diagnosis.v1 import diagnosis_pb2
from services.common.image_codec import decode_image
from services.common.logs import configure_logs
from services.common.settings import CommonSettings
from services.embedded import embedded_services
from training.command import explained, program_parser
from training.datasets.dataset import LabelledImage
from training.datasets.fields import read_aria_fields
from training.evaluation.confounders import colour_statistics, cross_validated_scores
from training.metrics.by_patient import auc, bootstrap_by_patient

HEALTHY = "Benign"
_THUMBNAIL = 112


@dataclass
class Blocks:
    """Answers for the blocks of one subclass."""

    findings: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    cells: int = 0
    suspected: int = 0
    indeterminate: int = 0

    def add(self, specimen: diagnosis_pb2.SpecimenDiagnosis) -> None:
        """Count one block."""
        self.findings[diagnosis_pb2.Finding.Name(specimen.finding).removeprefix("FINDING_")] += 1
        self.reasons.update(specimen.reasons)
        self.cells += specimen.counts.total
        self.suspected += specimen.counts.suspected
        self.indeterminate += specimen.counts.indeterminate


def colour_auc(images: Sequence[LabelledImage]) -> str:
    """AUC of the colours alone for a field not being healthy, cross-validated by block, and the same of the mean over each block."""
    pixels = [cv2.resize(decode_image(i.path.read_bytes()).pixels, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA) for i in images]
    labels = np.array([i.classes[0] != HEALTHY for i in images], np.int64)
    blocks = np.array([i.group for i in images])
    scores = cross_validated_scores(colour_statistics(np.stack(pixels)), labels, blocks)
    by_field = bootstrap_by_patient(auc, scores, labels, blocks)
    names = np.unique(blocks)
    means = np.array([scores[blocks == b].mean() for b in names])
    of_block = np.array([labels[blocks == b][0] for b in names])
    return f"colours alone: AUC {by_field} by field, {auc(means, of_block):.3f} by block"


async def diagnose_blocks(images: Sequence[LabelledImage], release: str) -> dict[str, Blocks]:
    """Diagnose every block as a specimen, through all services; by subclass."""
    blocks: defaultdict[str, list[LabelledImage]] = defaultdict(list)
    for image in images:
        blocks[image.group].append(image)
    found: defaultdict[str, Blocks] = defaultdict(Blocks)
    async with embedded_services(CommonSettings()) as services:
        with Progress() as progress:
            bar = progress.add_task("diagnosing blocks", total=len(blocks))
            for members in blocks.values():
                requests = [
                    diagnosis_pb2.DiagnoseRequest(request_id=str(n), image=i.path.read_bytes(), release=release) for n, i in enumerate(members)
                ]

                async def sent(
                    requests: list[diagnosis_pb2.DiagnoseRequest] = requests,
                ) -> AsyncIterator[diagnosis_pb2.DiagnoseSpecimenRequest]:
                    for request in requests:
                        yield diagnosis_pb2.DiagnoseSpecimenRequest(request=request)

                async for answer in services.stubs["gateway"].DiagnoseSpecimen(sent()):
                    if answer.HasField("specimen"):
                        found[members[0].classes[0]].add(answer.specimen)
                progress.advance(bar)
    return dict(found)


@explained
def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = program_parser("stress", __doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder aria_fields")
    parser.add_argument("--release", default="", help="release id or system; the default release if not given")
    given = parser.parse_args(arguments)
    configure_logs("ERROR")
    images = read_aria_fields(given.data).images
    found = asyncio.run(diagnose_blocks(images, given.release))
    print("| subclass | blocks | findings | cells | suspected | indeterminate | reasons |")
    print("|---|---|---|---|---|---|---|")
    for name, blocks in sorted(found.items()):
        findings = ", ".join(f"{n} {f}" for f, n in blocks.findings.most_common())
        reasons = ", ".join(f"{r} {n}" for r, n in blocks.reasons.most_common(4))
        print(f"| {name} | {sum(blocks.findings.values())} | {findings} | {blocks.cells} | {blocks.suspected} | {blocks.indeterminate} | {reasons} |")
    print(colour_auc(images))


if __name__ == "__main__":
    main()
