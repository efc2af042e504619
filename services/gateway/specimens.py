"""Fields that the images of one specimen share, and sums over these images."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from services.common.errors import InvalidRequestError
from services.gateway.decision import DecidedImage, Finding, SpecimenImages
from services.gateway.run_stats import RunStats


@dataclass(frozen=True)
class Specimen:
    """Fields that all images of a specimen share, taken from the first image. The release is resolved once, even if the index changes later.

    Attributes:
        name: the caller's pseudonym.
        named_release: the release as the first image named it; may be empty.
        release_id: the release that judges all of them.
    """

    name: str
    named_release: str
    release_id: str

    def check(self, name: str, release: str) -> None:
        """Check that an image belongs to this specimen; an empty field stands for that of the first image.

        Raises:
            InvalidRequestError: it is of another specimen, or asks for another release.
        """
        for field_name, said, shared in (
            ("specimen", name, {self.name}),
            ("release", release, {self.named_release, self.release_id}),
        ):
            if said and said not in shared:
                raise InvalidRequestError("SPECIMEN_MIXED", f"{field_name} must be the same for all images of a specimen.", field=field_name)


@dataclass
class Tally:
    """Adds up the images of a specimen.

    Attributes:
        images: counts over the images so far.
        seen: SHA-256 of the images that were judged.
        duplicates: images that were sent again, and count once.
        stats: models and times over all images.
    """

    images: SpecimenImages = field(default_factory=SpecimenImages)
    seen: set[str] = field(default_factory=set)
    duplicates: int = 0
    stats: RunStats = field(default_factory=RunStats)

    def add(self, image: DecidedImage, stats: RunStats) -> None:
        """Count a judged image; an image that is sent again counts once.

        Args:
            image: the decided image.
            stats: its models and times.
        """
        if image.sha256 in self.seen:
            self.duplicates += 1
            return
        self.seen.add(image.sha256)
        before = self.images
        self.images = replace(
            before,
            counts=before.counts + image.counts,
            clear=before.clear if image.poor else before.clear + image.counts,
            suspected=before.suspected + (image.decision.finding is Finding.BLASTS_SUSPECTED),
            poor=before.poor + bool(image.poor),
            phantom=before.phantom or image.phantom,
        )
        self.stats.add(stats)

    def add_failure(self) -> None:
        """Count an image that could not be judged."""
        self.images = replace(self.images, failed=self.images.failed + 1)
