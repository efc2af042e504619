"""Focus: the FQPath score of an image, higher is blurrier.

Source: Hosseini et al., "Focus quality assessment of high-throughput whole slide imaging in digital pathology"
(IEEE TMI 2020), as used by adaptive unsharpening (Genovese et al., ICASSP 2021). Scores of different scales are not
compared: the same cell scores lower at half the size.
"""

from __future__ import annotations

import math
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from services.common.errors import InvalidImageError

Bytes = NDArray[np.uint8]
Float = NDArray[np.float32]
Double = NDArray[np.float64]
Grey = NDArray[np.floating[Any]]

MIN_SIDE: Final = 32
"""Smallest side in px of an image that is scored."""
MAX_SCORE: Final = 120.0
"""Score of an image without any response: flat."""
_BINS: Final = 50
_ROUNDING: Final = 2e-5
"""Rounding errors of responses in single precision, grey levels: where a response is smaller, its sign is taken in double precision."""
MAX_UNCLEAR: Final = 1e-4
"""Share of the pixels whose signs may be unclear in single precision; flat ground has more."""
_FLAT: Final = 1e-12
"""Responses up to this, in grey levels, are flat ground: rounding errors in double precision. The original counts those that happen to be
positive, by the order of its sums; what is far from any edge on saturated ground is counted by none of ours."""
_GRAY: Final = np.array([[0.2989360213, 0.5870430745, 0.1140209043]], np.float32)

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


_BAND_PASS: Final = np.convolve(_generalised_gaussian(), np.concatenate([HALF_KERNEL[:0:-1], HALF_KERNEL]))
"""Low pass and visual-sensitivity kernel in one, 97 taps: on a symmetrically reflected line, one after the other is the same."""


def focus_score(rgb: Bytes) -> float:
    """Score one image.

    Args:
        rgb: uint8 (H, W, 3), sides at least ``MIN_SIDE``.

    Returns:
        ``-log10(mean((f - mean f)^4))`` of the strongest responses f to the visual-sensitivity kernel: about 6 (sharp)
        to 11 (blurred) at 256 px. 120 for a flat image. Within 0.005 of the definition in double precision.

    Raises:
        InvalidImageError: a side is shorter than ``MIN_SIDE``.
    """
    if min(rgb.shape[:2]) < MIN_SIDE:
        raise InvalidImageError("IMAGE_TOO_SMALL", f"The focus score needs sides of at least {MIN_SIDE} px, got {rgb.shape[1]} x {rgb.shape[0]}.")
    gray = np.rint(cv2.transform(rgb.astype(np.float32), _GRAY))
    along_rows, along_columns = (response.ravel() for response in _responses(gray))
    positive = (along_rows > _ROUNDING) & (along_columns > _ROUNDING)
    unclear = np.count_nonzero((along_rows > -_ROUNDING) & (along_columns > -_ROUNDING)) - np.count_nonzero(positive)
    if unclear > MAX_UNCLEAR * positive.size:
        along_rows, along_columns = (response.ravel() for response in _responses(gray.astype(np.float64)))
        positive = (along_rows > _FLAT) & (along_columns > _FLAT)
    both = np.flatnonzero(positive)
    if both.size == 0:
        return MAX_SCORE
    a, b = along_rows[both], along_columns[both]
    feature = (np.sqrt(a) + np.sqrt(b)) ** 2
    count = round(_share_of_strongest(np.concatenate([a, b])) * feature.size)
    if count == 0:
        return MAX_SCORE
    strongest = np.partition(feature, feature.size - count)[feature.size - count :].astype(np.float64) / 255.0
    moment = float(np.mean(np.square(np.square(strongest - strongest.mean()))))
    return MAX_SCORE if moment <= 10.0**-MAX_SCORE else -math.log10(moment)


def _responses(gray: Grey) -> tuple[Grey, Grey]:
    """Responses along rows and along columns, (H, W) in the type of the image, in grey levels 0..255."""
    # Filtering columns vectorises twice as well as filtering rows, which is worth two transpositions.
    return np.ascontiguousarray(_filter_columns(np.ascontiguousarray(gray.T)).T), _filter_columns(gray)


def _filter_columns(gray: Grey) -> Grey:
    form = gray.dtype
    filtered = cv2.sepFilter2D(gray, -1, np.ones(1, form), _BAND_PASS.astype(form), borderType=cv2.BORDER_REFLECT)
    return np.asarray(filtered, form)


def _share_of_strongest(responses: Grey) -> float:
    """Share 0.09..0.59 of the pixels that are kept: small where few responses are strong."""
    low, high = float(responses.min()), float(responses.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    bins = ((responses - responses.dtype.type(low)) * responses.dtype.type(_BINS / (high - low))).astype(np.int32)
    counts = np.bincount(np.minimum(bins, _BINS - 1), minlength=_BINS)
    centers = low + (np.arange(_BINS) + 0.5) * (high - low) / _BINS
    cumulative = np.cumsum(counts) / responses.size
    level = cumulative.min() + 0.95 * (cumulative.max() - cumulative.min())
    index = max(int(np.count_nonzero(cumulative < level)), 1)
    sigma = float(centers[index - 1] / centers[-1])
    return 0.09 + (1.0 - math.tanh(60.0 * (sigma - 0.095))) / 4.0
