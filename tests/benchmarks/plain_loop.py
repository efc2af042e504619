"""The served path as a plain loop: the same functions in the same order on the same ONNX files, in one thread, without gRPC and messages."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from services.common.engines.onnx_runtime import open_session
from services.common.image_codec import DecodedImage, ImageNote, decode_image, read_header
from services.common.maps import feature_map_message, read_feature_map
from services.common.releases import InputKind, Release, ReleaseStore
from services.common.settings import CommonSettings
from services.gateway.class_activation import evidence_maps
from services.gateway.decision import Counts, decide
from services.gateway.fusion import CellVerdict, blast_probability, judge_cell, nothing_probability
from services.gateway.image_quality import Quality, poor_reasons
from services.gateway.rules import cell_rule, image_rule
from services.patching.cells import MIN_CELLS_OF_FIELD, LocatedCell, LocatedCells, central_cell, locate_cells, looks_like_single_cell
from services.patching.crops import CutCrop, batches
from services.patching.locating import locate, run
from services.patching.locator_maps import MAPS
from services.patching.margins import picture_box
from services.patching.quality import focus_map, measure_exposure, typical_blur
from services.preprocessing.registration import register
from services.preprocessing.unsharpening import FocusParameters, SharpenedCell, sharpen_adaptively
from services.retrieval.library import ReferenceLibrary, open_library
from services.retrieval.neighbours import distance_quantile, project, unit, vote
from services.retrieval.search import ExactSearch
from services.retrieval.similarity import grad_cam, normalise_places, place_similarities, quantise, similarity_map
from tests.benchmarks.workloads import NEIGHBOURS

Bytes = NDArray[np.uint8]
Float = NDArray[np.float32]


@dataclass(frozen=True)
class PlainAnswer:
    """What the loop says of an image: its finding, as the contract names it, and its cells."""

    finding: str
    counts: Counts


@dataclass(frozen=True)
class _Seen:
    """An image and its cells, as patching answers them."""

    picture: Bytes
    cells: tuple[LocatedCell, ...]
    single: bool
    quality: Quality
    phantom: bool


class PlainLoop:
    """The default release, called one image after the other in one thread: no gRPC, no asyncio, no servers.

    Args:
        maps: whether cells are explained by maps, as callers ask for; a batch asks for none.
    """

    def __init__(self, maps: bool = True) -> None:
        settings = CommonSettings()
        store = ReleaseStore(settings.releases, settings.model_repository)
        self.release: Release = store.resolve("")
        self.library: ReferenceLibrary = open_library(store.library_path(self.release))
        self.search = ExactSearch(self.library.embeddings)
        assert self.release.embedder == self.release.network, "the loop runs one network per cell"
        self.session = open_session(store.model_path(self.release.network), threads=1)
        locator = store.locator(self.release.id)
        self.locator = None if locator is None else open_session(store.model_path(locator), threads=1)
        self.focus = FocusParameters(**dict(self.release.preprocessing))
        activations = ["class_activations"] if self.release.class_activations else []
        self.maps = maps
        self.outputs = ["logits", "embedding", *(["patch_embeddings", *activations] if maps else [])]
        cv2.setNumThreads(1)

    def diagnose(self, encoded: bytes) -> PlainAnswer:
        """Diagnose an image, with neighbours of every cell."""
        read_header(encoded)
        seen = self._see(decode_image(encoded))
        verdicts: list[CellVerdict] = []
        for batch in batches(seen.picture, seen.cells):
            verdicts += self._judge([self._sharpened(cell, crop) for _, cell, crop in batch])
        counts = Counts(len(verdicts), sum(v.suspected for v in verdicts), sum(v.indeterminate for v in verdicts))
        poor = () if seen.single else poor_reasons(seen.quality)
        decision = decide(counts, image_rule(self.release), phantom=seen.phantom, single_cell=seen.single, poor=poor)
        return PlainAnswer(str(decision.finding), counts)

    def _see(self, image: DecodedImage) -> _Seen:
        """What patching does: cells, kind, exposure and focus map."""
        picture = picture_box(image.pixels).of(image.pixels)
        found = self._cells(picture)
        cells = found.cells
        single = len(cells) < MIN_CELLS_OF_FIELD and looks_like_single_cell(cells, *picture.shape[:2])
        if single:
            central = central_cell(cells, *picture.shape[:2])
            cells = () if central is None else (central,)
        in_squares = focus_map(image.pixels)
        blur = typical_blur(in_squares if picture.shape == image.pixels.shape else focus_map(picture))
        exposure = measure_exposure(picture, found.outside)
        quality = Quality(blur, found.red_cell_radius or 0.0, exposure.over, exposure.under, found.covered, found.ink)
        return _Seen(picture, cells, single, quality, ImageNote.PHANTOM in image.notes)

    def _cells(self, picture: Bytes) -> LocatedCells:
        if self.locator is None:
            return locate_cells(picture, masks=False)
        return run(locate(picture, masks=False), self._maps)

    def _maps(self, seen: Bytes) -> Float:
        assert self.locator is not None
        (maps,) = self.locator.run([MAPS], {"images": np.ascontiguousarray(seen[None])})
        return np.asarray(maps[0], np.float32)

    def _sharpened(self, cell: LocatedCell, crop: CutCrop) -> tuple[Bytes, SharpenedCell]:
        """What preprocessing does: the input of the network, and how sharp it is."""
        x, y = cell.center_x - crop.origin_x, cell.center_y - crop.origin_y
        registered = register(np.ascontiguousarray(crop.pixels), x, y, cell.radius, self.release.input.side)
        sharpened = sharpen_adaptively(registered.pixels, registered.upscale_factor, self.focus)
        return sharpened.pixels if self.release.input.kind is InputKind.REGISTERED_SHARPENED else registered.pixels, sharpened

    def _judge(self, cells: list[tuple[Bytes, SharpenedCell]]) -> list[CellVerdict]:
        """What classification, retrieval and the gateway do with a batch."""
        results = self.session.run(self.outputs, {"images": np.stack([pixels for pixels, _ in cells])})
        outputs = dict(zip(self.outputs, results, strict=True))
        queries = unit(outputs["embedding"])
        k = self.release.calibration.voting_neighbours
        indices, distances = self.search.nearest(queries, max(k, NEIGHBOURS))
        votes = vote(distances[:, :k], self.library.is_blast[indices[:, :k]])
        project(queries, self.library.projection_mean, self.library.projection)
        calibration = np.asarray(self.release.calibration.nearest_distances, np.float64)
        verdicts = []
        for i, (_, sharpened) in enumerate(cells):
            distance_quantile(float(distances[i, 0]), calibration)
            if self.maps:
                self._explain(outputs, i, queries[i], indices[i, :NEIGHBOURS])
            logits = outputs["logits"][i]
            network, nothing = float(blast_probability(logits)), float(nothing_probability(logits))
            reasons = [str(reason) for reason in sharpened.reasons]
            verdicts.append(judge_cell(network, float(votes[i]), sharpened.accepted, reasons, cell_rule(self.release), nothing))
        return verdicts

    def _explain(self, outputs: dict[str, Float], i: int, query: Float, neighbours: NDArray[np.int64]) -> None:
        """The maps of one cell; the contract carries those of the network in half precision."""
        places = outputs["patch_embeddings"][i]
        own = normalise_places(read_feature_map(feature_map_message(places), places.shape[2], "places"))
        if "class_activations" in outputs:
            evidence_maps(outputs["class_activations"][i])
        for index in neighbours.tolist():
            other = self.library.embeddings[index]
            quantise(similarity_map(own, other))
            quantise(grad_cam(own, other))
            known = self.library.places_of(index)
            if known is not None:
                quantise(similarity_map(known, query))
                quantise(grad_cam(known, query))
                quantise(place_similarities(own, known))
