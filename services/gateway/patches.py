"""Judge the patches of a field: cut and classify them, and return where the network sees cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import grpc
import numpy as np

from dl4all.classification.v1 import classification_pb2
from dl4all.imaging.v1 import imaging_pb2
from dl4all.patching.v1 import patching_pb2
from services.common.cell_classes import BLAST, OTHER
from services.common.releases import Patches
from services.common.tracing import metadata
from services.gateway.answer_checks import check_classified_patches, check_models, check_patches
from services.gateway.calling import REFUSES_IMAGES, call, failed
from services.gateway.request_context import EncodedImage, RequestContext
from services.gateway.run_stats import RunStats, ServedFile
from services.gateway.stubs import Stubs


@dataclass(frozen=True)
class JudgedPatch:
    """The judgement of one patch.

    Attributes:
        x, y: column and row of its first pixel, px of the image.
        side: px of the image.
        blast_probability, other_probability: probability that it shows a blast, and another nucleated cell, 0..1.
        blast_present, other_present: whether these reach the release's limits.
    """

    x: int
    y: int
    side: int
    blast_probability: float
    other_probability: float
    blast_present: bool
    other_present: bool


@dataclass(frozen=True)
class JudgedPatches:
    """Judgements of the network of patches on an image.

    Attributes:
        kind: what the image was taken for; a single cell has no patches.
        patches: row by row.
        activations: for patching, which finds the cells at their peaks; None for a single cell.
        model: the network that was run; None where none was.
    """

    kind: imaging_pb2.ImageKind.ValueType
    patches: tuple[JudgedPatch, ...]
    activations: patching_pb2.PatchActivations | None
    model: ServedFile | None


class PatchJudge:
    """Judges the patches of fields.

    Args:
        stubs: the four services.
    """

    def __init__(self, stubs: Stubs) -> None:
        self._stubs = stubs

    async def judge(self, image: EncodedImage, patches: Patches, context: RequestContext, stats: RunStats) -> JudgedPatches:
        """Judge all patches of an image.

        Args:
            image: the encoded image.
            patches: how the release judges patches.
            context: of the checked request.
            stats: models and times are added here.

        Raises:
            DomainError: a service refused a call, or is down.
        """
        with stats.timed("patches"):
            kind = imaging_pb2.ImageKind.IMAGE_KIND_UNSPECIFIED
            cut: list[tuple[int, int, int]] = []
            judged: list[classification_pb2.ClassifiedPatch] = []
            model: ServedFile | None = None
            request = _grid(image, patches, context)
            try:
                async for piece in self._stubs.patching.CutPatches(request, timeout=context.deadline.left, metadata=metadata()):
                    kind = check_patches(piece, len(cut), patches.side).kind
                    if piece.patches:
                        answer = await self._classify(piece.patches, context)
                        judged.extend(answer.patches)
                        cut.extend((p.x, p.y, p.side) for p in piece.patches)
                        model = ServedFile(answer.model.name, answer.model.version, answer.model.sha256)
            except grpc.aio.AioRpcError as error:
                raise failed(error, "patching", of_caller=REFUSES_IMAGES) from error
        if not cut:
            return JudgedPatches(kind, (), None, None)
        decided = tuple(_judged(square, said, patches) for square, said in zip(cut, judged, strict=True))
        return JudgedPatches(kind, decided, _activations(cut, judged, patches), model)

    async def _classify(self, cut: Sequence[patching_pb2.ImagePatch], context: RequestContext) -> classification_pb2.ClassifyPatchesResponse:
        request = classification_pb2.ClassifyPatchesRequest(
            request_id=context.request_id,
            release=context.release.id,
            patches=[classification_pb2.ClassifyPatch(patch_id=p.patch_id, pixels=p.pixels) for p in cut],
        )
        answer = await call("classification", self._stubs.classification.ClassifyPatches(request, timeout=context.deadline.left, metadata=metadata()))
        classified = check_classified_patches(answer, [p.patch_id for p in cut])
        check_models([classified.model], context.release)
        return classified


def _grid(image: EncodedImage, patches: Patches, context: RequestContext) -> patching_pb2.CutPatchesRequest:
    return patching_pb2.CutPatchesRequest(
        request_id=context.request_id,
        release=context.release.id,
        image=image.content,
        kind=imaging_pb2.ImageKind.ValueType(image.kind),
        microns_per_pixel=image.microns_per_pixel,
        patch_side=patches.patch_side,
        overlap=patches.overlap,
        nominal_red_cell_radius=patches.nominal_red_cell_radius,
        side=patches.side,
    )


def _judged(square: tuple[int, int, int], said: classification_pb2.ClassifiedPatch, patches: Patches) -> JudgedPatch:
    blast, other = (1.0 / (1.0 + np.exp(-np.clip(np.asarray(said.logits, np.float64), -500, 500)))).tolist()
    return JudgedPatch(*square, blast, other, blast >= patches.min_probability[BLAST], other >= patches.min_probability[OTHER])


def _activations(
    cut: Sequence[tuple[int, int, int]], judged: Sequence[classification_pb2.ClassifiedPatch], patches: Patches
) -> patching_pb2.PatchActivations:
    return patching_pb2.PatchActivations(
        patches=[
            patching_pb2.PatchActivation(x=x, y=y, side=side, activations=said.activations) for (x, y, side), said in zip(cut, judged, strict=True)
        ],
        min_activation=patches.min_activation,
        suppression_radius=patches.suppression_radius * cut[0][2],
    )
