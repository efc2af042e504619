"""Focus: the FQPath score of an image, higher is blurrier.

Source: Hosseini et al., "Focus quality assessment of high-throughput whole slide imaging in digital pathology"
(IEEE TMI 2020), as used by adaptive unsharpening (Genovese et al., ICASSP 2021). Scores of different scales are not
compared: the same cell scores lower at half the size.
"""

from __future__ import annotations

import math
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.common.errors import InvalidImageError

Bytes = NDArray[np.uint8]
Double = NDArray[np.float64]

MIN_SIDE: Final = 32
"""Smallest side in px of an image that is scored."""
MAX_SCORE: Final = 120.0
"""Score of an image without any response: flat."""
_BINS: Final = 50
_ROUNDING: Final = 1e-12
"""Responses up to this are rounding errors of flat ground, not responses; their signs would depend on the order of sums."""

# The right half of the 65-tap kernel, h_0..h_32; made by focus_kernel.py.
HALF_KERNEL: Final = (
    0.2448940308368751,
    0.12228539992269435,
    -0.09407503430947584,
    -0.16052347159546898,
    -0.05501458425516499,
    0.0486399544936391,
    0.04427821316844418,
    -0.009045290250496663,
    -0.02536641068861126,
    -0.004480831055890185,
    0.010051697572801374,
    0.005115569032800515,
    -0.002609997224234813,
    -0.0027982320924546597,
    0.00015243499201937651,
    0.0010234237901863015,
    0.0002374253344636978,
    -0.0002478216279791282,
    -0.00013443707186431116,
    2.958235362864415e-05,
    4.02647790212488e-05,
    3.7203119883655558e-06,
    -7.200056416821786e-06,
    -2.4545697259558686e-06,
    5.83613012033452e-07,
    4.956153991383151e-07,
    4.185717706596575e-08,
    -4.479280580326023e-08,
    -1.404992668169721e-08,
    2.804485484897175e-10,
    9.076597881216646e-10,
    1.8403639582864254e-10,
    1.2658403297404284e-11,
)


def _generalised_gaussian() -> Double:
    shape = 1.5
    scale = 2.0 * math.sqrt(math.gamma(1 / shape) / math.gamma(3 / shape))
    taps = np.exp(-(np.abs(np.arange(-16, 17) / scale) ** shape))
    return np.asarray(taps / taps.sum(), np.float64)


_LOW_PASS: Final = _generalised_gaussian()
_KERNEL: Final = np.concatenate([HALF_KERNEL[:0:-1], HALF_KERNEL])


def focus_score(rgb: Bytes) -> float:
    """Score one image.

    Args:
        rgb: uint8 (H, W, 3), sides at least ``MIN_SIDE``.

    Returns:
        ``-log10(mean((f - mean f)^4))`` of the strongest responses f to the visual-sensitivity kernel: about 6 (sharp)
        to 11 (blurred) at 256 px. 120 for a flat image.

    Raises:
        InvalidImageError: a side is shorter than ``MIN_SIDE``.
    """
    if min(rgb.shape[:2]) < MIN_SIDE:
        raise InvalidImageError("IMAGE_TOO_SMALL", f"The focus score needs sides of at least {MIN_SIDE} px, got {rgb.shape[1]} x {rgb.shape[0]}.")
    gray = np.round(rgb @ np.array([0.2989360213, 0.5870430745, 0.1140209043])) / 255.0
    vertical, horizontal = _responses(gray)
    both = (vertical > _ROUNDING) & (horizontal > _ROUNDING)
    if not both.any():
        return MAX_SCORE
    a, b = horizontal[both], vertical[both]
    feature = (np.sqrt(a) + np.sqrt(b)) ** 2
    count = round(_share_of_strongest(np.concatenate([a, b])) * feature.size)
    if count == 0:
        return MAX_SCORE
    strongest = np.partition(feature, feature.size - count)[feature.size - count :]
    moment = float(np.mean((strongest - strongest.mean()) ** 4))
    return MAX_SCORE if moment <= 10.0**-MAX_SCORE else -math.log10(moment)


def _responses(gray: Double) -> tuple[Double, Double]:
    identity = np.ones(1)
    results = []
    for along_rows in (False, True):
        response = gray
        for kernel in (_LOW_PASS, _KERNEL):
            x, y = (kernel, identity) if along_rows else (identity, kernel)
            response = np.asarray(cv2.sepFilter2D(response, cv2.CV_64F, x, y, borderType=cv2.BORDER_REFLECT), np.float64)
        results.append(response)
    return results[0], results[1]


def _share_of_strongest(responses: Double) -> float:
    """Share 0.09..0.59 of the pixels that are kept: small where few responses are strong."""
    counts, edges = np.histogram(responses, bins=_BINS)
    centers = (edges[:-1] + edges[1:]) / 2
    cumulative = np.cumsum(counts) / responses.size
    level = cumulative.min() + 0.95 * (cumulative.max() - cumulative.min())
    index = max(int(np.count_nonzero(cumulative < level)), 1)
    sigma = float(centers[index - 1] / centers[-1])
    return 0.09 + (1.0 - math.tanh(60.0 * (sigma - 0.095))) / 4.0
