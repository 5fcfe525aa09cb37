"""Digital X-ray (DX) objects: header, pixels, and their place in a folder archive.

Attributes follow DICOM PS3.3 A.26 (Digital X-Ray Image IOD) as far as a reader of chest films needs them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

SOP_CLASS = str(DigitalXRayImageStorageForPresentation)
UID_PREFIX = "2.25."
Syntax = Literal["explicit", "rle", "jpeg-ls"]


@dataclass(frozen=True)
class Uids:
    """The three DICOM identifiers of an image."""

    study: str
    series: str
    instance: str

    @property
    def path(self) -> Path:
        """Where a folder archive keeps the image."""
        return Path(self.study) / self.series / f"{self.instance}.dcm"


def make_uids(seed: int, image: str) -> Uids:
    """Return UIDs that depend on seed and image name only."""
    levels = ("study", "series", "instance")
    return Uids(
        *(str(generate_uid(prefix=UID_PREFIX, entropy_srcs=[str(seed), image, level])) for level in levels)
    )


def make_header(
    *, uids: Uids, patient_id: str, taken: datetime, view: str, patient_name: str, note: str
) -> Dataset:
    """Return a DX object of a chest film without pixel data.

    Parameters
    ----------
    taken
        Aware time of exposure; its offset goes to Timezone Offset From UTC.
    view
        ``AP``, ``PA`` or ``LL``.
    note
        Goes to Image Comments and Patient Comments: says what the image really is.
    """
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    data.file_meta.MediaStorageSOPInstanceUID = UID(uids.instance)
    data.preamble = b"\0" * 128
    data.SpecificCharacterSet = "ISO_IR 192"
    data.SOPClassUID, data.SOPInstanceUID = DigitalXRayImageStorageForPresentation, uids.instance
    data.StudyInstanceUID, data.SeriesInstanceUID = uids.study, uids.series
    data.PatientID, data.PatientName = patient_id, patient_name
    data.PatientComments = data.ImageComments = note
    data.PatientBirthDate, data.PatientSex = "", "O"
    data.Modality, data.BodyPartExamined, data.ViewPosition = "DX", "CHEST", view
    data.PresentationIntentType = "FOR PRESENTATION"
    data.ImageType = ["DERIVED", "PRIMARY"]
    data.Manufacturer = "Nightingale"
    data.StudyDate = data.SeriesDate = data.ContentDate = data.AcquisitionDate = taken.strftime("%Y%m%d")
    data.StudyTime = data.SeriesTime = data.ContentTime = data.AcquisitionTime = taken.strftime("%H%M%S")
    data.TimezoneOffsetFromUTC = taken.strftime("%z")
    data.AccessionNumber, data.StudyID = "", "1"
    data.SeriesNumber, data.InstanceNumber = 1, 1
    data.ReferringPhysicianName = ""
    data.PatientOrientation = ["L", "F"]
    data.BurnedInAnnotation = "NO"
    data.LossyImageCompression = "00"
    return data


def add_pixels(
    data: Dataset,
    stored: NDArray[np.uint8] | NDArray[np.uint16],
    *,
    bits: int,
    inverted: bool,
    spacing: float,
    syntax: Syntax = "explicit",
) -> None:
    """Add stored values and what is needed to show them.

    Parameters
    ----------
    stored
        Stored values, shape ``[rows, columns]``, uint8 or uint16.
    bits
        Bits stored.
    inverted
        MONOCHROME1: the highest value is black.
    spacing
        Imager pixel spacing in mm.
    """
    top = int(stored.max())
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    data.Rows, data.Columns = stored.shape
    data.BitsAllocated, data.BitsStored, data.HighBit = stored.dtype.itemsize * 8, bits, bits - 1
    data.PixelRepresentation = 0
    data.ImagerPixelSpacing = [spacing, spacing]
    data.PixelIntensityRelationship, data.PixelIntensityRelationshipSign = "LOG", -1 if inverted else 1
    data.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    data.RescaleIntercept, data.RescaleSlope, data.RescaleType = 0, 1, "US"
    data.WindowCenter, data.WindowWidth = max(top // 2, 1), max(top, 1)
    data.PixelData = stored.tobytes()
    if syntax == "rle":
        data.compress(RLELossless, generate_instance_uid=False)
    elif syntax == "jpeg-ls":
        data.compress(JPEGLSLossless, generate_instance_uid=False)


def write_dicom(data: Dataset, archive: Path, uids: Uids) -> Path:
    """Write a dataset below the archive and return its path."""
    path = archive / uids.path
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path
