"""The way of a field in a release that judges patches: cut, judged, and where the network sees cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import grpc
import numpy as np

from dl4all.classification.v1 import classification_pb2
from dl4all.diagnosis.v1 import diagnosis_pb2
from dl4all.imaging.v1 import imaging_pb2
from dl4all.patching.v1 import patching_pb2
from services.common.cell_classes import BLAST, OTHER
from services.common.releases import Patches
from services.common.tracing import metadata
from services.gateway.answer_checks import check_classified_patches, check_models, check_patches
from services.gateway.calling import Effort, call, failed
from services.gateway.judging import Asked
from services.gateway.stubs import Stubs


@dataclass(frozen=True)
class JudgedPatches:
    """What the network of patches said of an image.

    Attributes:
        kind: what the image was taken for; a single cell has no patches.
        messages: one per patch, row by row.
        activations: for patching, which finds the cells at their peaks; None for a single cell.
        model: the network that was run; None where none was.
    """

    kind: imaging_pb2.ImageKind.ValueType
    messages: tuple[diagnosis_pb2.PatchDiagnosis, ...]
    activations: patching_pb2.PatchActivations | None
    model: classification_pb2.ServedModel | None


class PatchJudge:
    """Judges the patches of fields.

    Args:
        stubs: the four services.
    """

    def __init__(self, stubs: Stubs) -> None:
        self._stubs = stubs

    async def judge(self, request: diagnosis_pb2.DiagnoseRequest, patches: Patches, asked: Asked, effort: Effort) -> JudgedPatches:
        """Judge all patches of an image.

        Args:
            request: a checked request.
            patches: of the release that decides.
            asked: what is asked for.
            effort: what it takes is added here.

        Raises:
            DomainError: what a service refused, or that one is down.
        """
        with effort.timed("patches"):
            kind = imaging_pb2.ImageKind.IMAGE_KIND_UNSPECIFIED
            cut: list[tuple[int, int, int]] = []
            judged: list[classification_pb2.ClassifiedPatch] = []
            model: classification_pb2.ServedModel | None = None
            try:
                async for piece in self._stubs.patching.CutPatches(_grid(request, patches), timeout=asked.clock.left, metadata=metadata()):
                    kind = check_patches(piece, len(cut), patches.side).kind
                    if piece.patches:
                        answer = await self._classify(piece.patches, asked)
                        judged.extend(answer.patches)
                        cut.extend((p.x, p.y, p.side) for p in piece.patches)
                        model = answer.model
            except grpc.aio.AioRpcError as error:
                raise failed(error, "patching") from error
        if not cut:
            return JudgedPatches(kind, (), None, None)
        messages = tuple(_message(place, said, patches) for place, said in zip(cut, judged, strict=True))
        return JudgedPatches(kind, messages, _activations(cut, judged, patches), model)

    async def _classify(self, cut: Sequence[patching_pb2.ImagePatch], asked: Asked) -> classification_pb2.ClassifyPatchesResponse:
        request = classification_pb2.ClassifyPatchesRequest(
            request_id=asked.request_id,
            release=asked.release.id,
            patches=[classification_pb2.ClassifyPatch(patch_id=p.patch_id, pixels=p.pixels) for p in cut],
        )
        answer = await call("classification", self._stubs.classification.ClassifyPatches(request, timeout=asked.clock.left, metadata=metadata()))
        classified = check_classified_patches(answer, [p.patch_id for p in cut])
        check_models([classified.model], asked.release)
        return classified


def _grid(request: diagnosis_pb2.DiagnoseRequest, patches: Patches) -> patching_pb2.CutPatchesRequest:
    return patching_pb2.CutPatchesRequest(
        request_id=request.request_id,
        image=request.image,
        kind=request.kind,
        microns_per_pixel=request.microns_per_pixel,
        patch_side=patches.patch_side,
        overlap=patches.overlap,
        nominal_red_cell_radius=patches.nominal_red_cell_radius,
        side=patches.side,
    )


def _message(place: tuple[int, int, int], said: classification_pb2.ClassifiedPatch, patches: Patches) -> diagnosis_pb2.PatchDiagnosis:
    x, y, side = place
    blast, other = (1.0 / (1.0 + np.exp(-np.clip(np.asarray(said.logits, np.float64), -500, 500)))).tolist()
    return diagnosis_pb2.PatchDiagnosis(
        box=imaging_pb2.Box(x=x, y=y, width=side, height=side),
        blast_probability=blast,
        other_probability=other,
        blast_present=blast >= patches.min_probability[BLAST],
        other_present=other >= patches.min_probability[OTHER],
    )


def _activations(
    cut: Sequence[tuple[int, int, int]], judged: Sequence[classification_pb2.ClassifiedPatch], patches: Patches
) -> patching_pb2.PatchActivations:
    return patching_pb2.PatchActivations(
        patches=[
            patching_pb2.PatchActivation(x=x, y=y, side=side, rows=said.rows, columns=said.columns, values=said.activations)
            for (x, y, side), said in zip(cut, judged, strict=True)
        ],
        min_activation=patches.min_activation,
        suppression_radius=patches.suppression_radius * cut[0][2],
    )
