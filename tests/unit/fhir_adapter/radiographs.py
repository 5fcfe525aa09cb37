"""DICOM chest radiographs that tests build in every transfer syntax."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian

STUDY, SERIES, INSTANCE = "1.2.3", "1.2.3.4", "1.2.3.4.5"


def pixels(rows: int = 64, columns: int = 48, *, top: int = 4095, seed: int = 0) -> np.ndarray:
    """A smooth picture with some noise, uint16."""
    draw = np.random.default_rng(seed)
    picture = np.add.outer(np.linspace(0, 0.7, rows), np.linspace(0, 0.2, columns)) + draw.uniform(
        0, 0.1, (rows, columns)
    )
    return np.round(picture * top).astype(np.uint16)


def dataset(picture: np.ndarray, *, bits: int = 12, **elements: Any) -> Dataset:
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = INSTANCE
    made.StudyInstanceUID, made.SeriesInstanceUID = STUDY, SERIES
    made.Modality, made.BodyPartExamined, made.ViewPosition = "DX", "CHEST", "PA"
    made.Rows, made.Columns = picture.shape
    made.BitsAllocated = 8 if bits <= 8 else 16
    made.BitsStored, made.HighBit, made.PixelRepresentation = bits, bits - 1, 0
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.PixelData = picture.astype(np.uint8 if bits <= 8 else "<u2").tobytes()
    for name, value in elements.items():
        if value is None:
            delattr(made, name)
        else:
            setattr(made, name, value)
    return made


def dicom_bytes(made: Dataset) -> bytes:
    buffer = BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def compressed(picture: np.ndarray, frame: bytes, syntax: str, *, bits: int = 12, **elements: Any) -> bytes:
    """A DICOM file around one compressed frame."""
    made = dataset(picture, bits=bits, **elements)
    made.file_meta.TransferSyntaxUID = syntax
    made.PixelData = encapsulate([frame])
    made["PixelData"].is_undefined_length = True
    return dicom_bytes(made)


def jpeg_lossless(picture: np.ndarray, *, bits: int) -> bytes:
    """JPEG Lossless (ITU-T T.81 Annex H), process 14, predictor 1, one component, written here bit by bit.

    The Huffman table gives every difference category 0-16 a code of five bits.
    """
    rows, columns = picture.shape
    values = picture.astype(np.int64)
    out: list[tuple[int, int]] = []
    for row in range(rows):
        for column in range(columns):
            if row == 0 and column == 0:
                predicted = 1 << (bits - 1)
            elif column == 0:
                predicted = int(values[row - 1, 0])
            else:
                predicted = int(values[row, column - 1])
            difference = (int(values[row, column]) - predicted) & 0xFFFF
            if difference >= 0x8000:
                difference -= 0x10000
            category = 16 if difference == -0x8000 else abs(difference).bit_length()
            out.append((category, 5))
            if 0 < category < 16:
                out.append((difference if difference > 0 else difference + (1 << category) - 1, category))
    body = bytearray()
    register = filled = 0
    for value, count in out:
        register, filled = (register << count) | value, filled + count
        while filled >= 8:
            byte = (register >> (filled - 8)) & 0xFF
            body.append(byte)
            if byte == 0xFF:
                body.append(0)
            filled -= 8
        register &= (1 << filled) - 1
    if filled:
        body.append(((register << (8 - filled)) | ((1 << (8 - filled)) - 1)) & 0xFF)
    table = bytes([0, *([0] * 4), 17, *([0] * 11), *range(17)])
    frame_header = (
        bytes([bits]) + rows.to_bytes(2, "big") + columns.to_bytes(2, "big") + bytes([1, 1, 0x11, 0])
    )

    def segment(marker: int, content: bytes) -> bytes:
        return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content

    return (
        b"\xff\xd8"
        + segment(0xC3, frame_header)
        + segment(0xC4, table)
        + segment(0xDA, bytes([1, 1, 0, 1, 0, 0]))
        + bytes(body)
        + b"\xff\xd9"
    )
