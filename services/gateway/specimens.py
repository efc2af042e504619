"""What the images of one specimen share, and what they add up to."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from dl4all.diagnosis.v1 import diagnosis_pb2
from services.common.errors import InvalidRequestError
from services.common.releases import Release
from services.gateway.calling import Effort
from services.gateway.composition import JudgedImage
from services.gateway.decision import SpecimenImages


@dataclass(frozen=True)
class Specimen:
    """What all images of a specimen share, as the first said it; the release is resolved once, whatever the index says later.

    Attributes:
        name: the caller's pseudonym.
        asked_release: the release as the first image named it; may be empty.
        release: the release that judges all of them.
    """

    name: str
    asked_release: str
    release: Release

    def claim(self, request: diagnosis_pb2.DiagnoseRequest) -> diagnosis_pb2.DiagnoseRequest:
        """The request of an image, with what it leaves out filled in.

        Raises:
            InvalidRequestError: it is of another specimen, or asks for another release.
        """
        for field_name, said, shared in (
            ("specimen", request.specimen, {self.name}),
            ("release", request.release, {self.asked_release, self.release.id}),
        ):
            if said and said not in shared:
                raise InvalidRequestError("SPECIMEN_MIXED", f"{field_name} must be the same for all images of a specimen.", field=field_name)
        request.specimen, request.release = self.name, self.release.id
        return request


@dataclass
class Tally:
    """Collects what the images of a specimen add up to.

    Attributes:
        images: counts over the images so far.
        seen: SHA-256 of the images that were judged.
        duplicates: images that were sent again, and count once.
        effort: what it took, over all images.
    """

    images: SpecimenImages = field(default_factory=SpecimenImages)
    seen: set[str] = field(default_factory=set)
    duplicates: int = 0
    effort: Effort = field(default_factory=Effort)

    def add(self, image: JudgedImage, *, suspected: bool) -> None:
        """Count an image that was judged; one that was sent before counts once.

        Args:
            image: what was judged.
            suspected: whether blasts are suspected in the image by itself.
        """
        if image.header.image_sha256 in self.seen:
            self.duplicates += 1
            return
        self.seen.add(image.header.image_sha256)
        before = self.images
        self.images = replace(
            before,
            counts=before.counts + image.counts,
            clear=before.clear if image.poor else before.clear + image.counts,
            suspected=before.suspected + suspected,
            poor=before.poor + bool(image.poor),
            phantom=before.phantom or image.is_phantom,
        )
        self.effort.add(image.effort)

    def add_failure(self) -> None:
        """Count an image that could not be judged."""
        self.images = replace(self.images, failed=self.images.failed + 1)
