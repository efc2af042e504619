"""Write a DICOM whole-slide file with pydicom, independent of the reader under test."""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid

_CLASS = UID("1.2.840.10008.5.1.4.1.1.77.1.6")
TILE = 64


def write_dicom(
    path: Path,
    pixels: np.ndarray,
    microns: float = 0.25,
    lying_side: int = 0,
    syntax: str = JPEGBaseline8Bit,
    encode: Callable[[np.ndarray], bytes] | None = None,
    lying: bytes | None = None,
    kept: Iterable[int] | None = None,
    **facts: object,
) -> Path:
    """A TILED_FULL volume.

    Args:
        path: of the file.
        pixels: uint8 (height, width, 3).
        microns: per pixel.
        lying_side: gives the second tile another size than the header says.
        syntax: transfer syntax.
        encode: encodes a tile; JPEG by default.
        lying: the stream of the second tile, instead of its own.
        kept: numbers of the tiles that are stored, each with its place (TILED_SPARSE); None for all, without (TILED_FULL).
        facts: further elements, or others than usual, by their keywords.
    """
    height, width = pixels.shape[:2]
    rows, columns = math.ceil(height / TILE), math.ceil(width / TILE)
    padded = np.pad(pixels, ((0, rows * TILE - height), (0, columns * TILE - width), (0, 0)), mode="edge")
    tiles = [padded[r * TILE : (r + 1) * TILE, c * TILE : (c + 1) * TILE] for r in range(rows) for c in range(columns)]
    if lying_side:
        tiles[1] = np.full((lying_side, lying_side, 3), 90, np.uint8)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = _CLASS
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = UID(syntax)
    d = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    d.SOPClassUID, d.SOPInstanceUID = _CLASS, meta.MediaStorageSOPInstanceUID
    d.StudyInstanceUID, d.SeriesInstanceUID, d.FrameOfReferenceUID = generate_uid(), generate_uid(), generate_uid()
    d.DimensionOrganizationType = "TILED_FULL"
    d.Modality, d.ImageType = "SM", ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    d.PatientName, d.PatientID, d.StudyID, d.AccessionNumber = "Phantom", "1", "", ""
    d.StudyDate = d.ContentDate = "20260101"
    d.StudyTime = d.ContentTime = "120000"
    d.AcquisitionDateTime = "20260101120000"
    d.Manufacturer = d.ManufacturerModelName = d.DeviceSerialNumber = d.SoftwareVersions = "test"
    d.SeriesNumber = d.InstanceNumber = 1
    d.Rows = d.Columns = TILE
    d.SamplesPerPixel, d.PhotometricInterpretation, d.PlanarConfiguration = 3, "YBR_FULL_422" if encode is None else "RGB", 0
    d.BitsAllocated = d.BitsStored = 8
    d.HighBit, d.PixelRepresentation = 7, 0
    d.TotalPixelMatrixColumns, d.TotalPixelMatrixRows = width, height
    d.NumberOfFrames = len(tiles)
    d.ImagedVolumeWidth, d.ImagedVolumeHeight, d.ImagedVolumeDepth = width * microns / 1000, height * microns / 1000, 0.001
    d.VolumetricProperties, d.SpecimenLabelInImage, d.BurnedInAnnotation, d.FocusMethod = "VOLUME", "NO", "NO", "AUTO"
    d.ExtendedDepthOfField, d.LossyImageCompression = "NO", "01"
    d.ImageOrientationSlide = [0, 1, 0, 1, 0, 0]
    d.TotalPixelMatrixOriginSequence = Sequence([_dataset(XOffsetInSlideCoordinateSystem=0, YOffsetInSlideCoordinateSystem=0)])
    measures = _dataset(PixelSpacing=[microns / 1000, microns / 1000], SliceThickness=0.001, SpacingBetweenSlices=0.001)
    kind = _dataset(FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])
    d.SharedFunctionalGroupsSequence = Sequence(
        [_dataset(PixelMeasuresSequence=Sequence([measures]), WholeSlideMicroscopyImageFrameTypeSequence=Sequence([kind]))]
    )
    d.NumberOfOpticalPaths, d.TotalPixelMatrixFocalPlanes = 1, 1
    code = _dataset(CodeValue="111744", CodingSchemeDesignator="DCM", CodeMeaning="Brightfield illumination")
    d.OpticalPathSequence = Sequence([_dataset(OpticalPathIdentifier="1", IlluminationTypeCodeSequence=Sequence([code]))])
    if kept is not None:
        numbers = list(kept)
        tiles = [tiles[i] for i in numbers]
        d.DimensionOrganizationType, d.NumberOfFrames = "TILED_SPARSE", len(tiles)
        d.PerFrameFunctionalGroupsSequence = Sequence([_placed(i, columns) for i in numbers])
    for name, value in facts.items():
        setattr(d, name, value)
    frames = [(encode or _jpeg)(tile) for tile in tiles]
    if lying is not None:
        frames[1] = lying
    native = UID(syntax) in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
    d.PixelData = b"".join(frames) if native else encapsulate(frames)
    d["PixelData"].VR = "OB"
    d["PixelData"].is_undefined_length = not native
    d.save_as(path, enforce_file_format=True)
    return path


def _placed(number: int, columns: int) -> Dataset:
    place = _dataset(
        ColumnPositionInTotalImagePixelMatrix=number % columns * TILE + 1,
        RowPositionInTotalImagePixelMatrix=number // columns * TILE + 1,
        XOffsetInSlideCoordinateSystem=0,
        YOffsetInSlideCoordinateSystem=0,
        ZOffsetInSlideCoordinateSystem=0,
    )
    return _dataset(PlanePositionSlideSequence=Sequence([place]))


def write_single(
    path: Path,
    pixels: np.ndarray,
    sop_class: str = "1.2.840.10008.5.1.4.1.1.77.1.2",
    syntax: str = ExplicitVRLittleEndian,
    stream: bytes = b"",
    **facts: object,
) -> Path:
    """A single image, uncompressed or as a packed stream in two pieces.

    Args:
        path: of the file.
        pixels: uint8 (height, width, 3).
        sop_class: what it calls itself: a microscopic image by default.
        syntax: transfer syntax.
        stream: packed pixels; empty for uncompressed ones.
        facts: further elements, or others than usual, by their keywords.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = UID(sop_class), generate_uid(), UID(syntax)
    d = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    d.SOPClassUID, d.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    d.StudyInstanceUID, d.SeriesInstanceUID, d.Modality = generate_uid(), generate_uid(), "GM"
    d.Rows, d.Columns = pixels.shape[:2]
    d.SamplesPerPixel, d.PhotometricInterpretation, d.PlanarConfiguration = 3, "RGB", 0
    d.BitsAllocated = d.BitsStored = 8
    d.HighBit, d.PixelRepresentation = 7, 0
    for name, value in facts.items():
        setattr(d, name, value)
    half = len(stream) // 2 // 2 * 2
    d.PixelData = encapsulate_pieces([stream[:half], stream[half:]]) if stream else pixels.tobytes()
    d["PixelData"].VR = "OB"
    d["PixelData"].is_undefined_length = bool(stream)
    d.save_as(path, enforce_file_format=True)
    return path


def encapsulate_pieces(pieces: list[bytes]) -> bytes:
    """One frame in several pieces, after an empty table of offsets."""
    items = [b"", *(piece + b"\0" * (len(piece) % 2) for piece in pieces)]
    return b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in items) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def _dataset(**values: object) -> Dataset:
    made = Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def _jpeg(tile: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(tile)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()
