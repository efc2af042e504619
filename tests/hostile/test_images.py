"""Small images that cost much."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from dl4all_client import DiagnosisClient, ServiceError
from tests.hostile.victim import MIB, GoodClient, sized


def _encoded(array: np.ndarray, form: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(array).save(out, form, **options)  # type: ignore[arg-type]
    return out.getvalue()


def narrow() -> bytes:
    """A PNG of 63 px by hundreds of thousands."""
    image = np.full((sized(200_000, 600_000), 63, 3), 230, np.uint8)
    image[::7, ::5] = (120, 40, 160)
    return _encoded(image)


def rotated() -> bytes:
    """An RGBA-16 PNG that is to be turned, all of one pattern."""
    side = sized(3000, 10_000)
    row = b"\0" + struct.pack(">4H", 60_000, 50_000, 58_000, 65_535) * (side // 2) + struct.pack(">4H", 30_000, 10_000, 40_000, 65_535) * (side // 2)
    packer = zlib.compressobj(1)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    exif = Image.Exif()
    exif[0x0112] = 6
    header = struct.pack(">IIBBBBB", side, side, 16, 6, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"eXIf", exif.tobytes()[6:]), chunk(b"IDAT", data), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def specks() -> bytes:
    """A field of 900 specks."""
    image = np.full((930, 930, 3), 235, np.uint8)
    for y in range(15, 915, 30):
        for x in range(15, 915, 30):
            image[y : y + 9, x : x + 9] = (110, 40, 150)
    return _encoded(image)


def scans() -> bytes:
    """A progressive JPEG with thousands of scans."""
    content = _encoded(np.full((600, 600, 3), 200, np.uint8), "JPEG", progressive=True)
    start, end = content.rindex(b"\xff\xda"), content.rindex(b"\xff\xd9")
    return content[:start] + content[start:end] * 2000 + content[end:]


@pytest.mark.parametrize(
    ("make", "scale", "reasons", "most"),
    [
        (narrow, 0.0, {"IMAGE_TOO_LARGE"}, 60),
        (rotated, 0.0, {""}, sized(400, 1800)),
        (specks, 0.0101, {"", "DEADLINE_EXCEEDED"}, 300),
        (scans, 0.0, {"IMAGE_TOO_LARGE"}, 60),
    ],
    ids=["narrow", "rotated", "specks", "scans"],
)
def test_images_that_cost_much(
    make: Callable[[], bytes], scale: float, reasons: set[str], most: int, attacked: str, good: GoodClient, growth: Callable[[], int]
) -> None:
    image = make()
    assert len(image) < 16 * MIB

    def attack(_: int) -> str:
        with DiagnosisClient(attacked, timeout=2.0 if scale else 60.0) as client:
            try:
                client.diagnose(image, microns_per_pixel=scale)
            except ServiceError as error:
                return error.reason or error.code
        return ""

    with good.at_work(), ThreadPoolExecutor(2) as threads:
        said = set(threads.map(attack, range(4)))
    assert said <= reasons
    assert good.peak > 0
    assert growth() < most * MIB
