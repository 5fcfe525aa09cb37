"""Chest-like radiographs, drawn: trunk, lungs, heart, ribs, diaphragm, opacities that grow with severity."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

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
from scipy.ndimage import gaussian_filter, zoom

SOP_CLASS = str(DigitalXRayImageStorageForPresentation)
UID_PREFIX = "2.25."


def _ellipse(
    x: NDArray[np.float64], y: NDArray[np.float64], cx: float, cy: float, a: float, b: float
) -> NDArray[np.float64]:
    """Soft-edged ellipse, 1 inside and 0 outside."""
    return 1 / (1 + np.exp(14 * (((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 - 1)))


def draw_chest(
    *, lungs: float, heart: float, size: int, portable: bool, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return an image of shape ``[size, size]`` in 0 to 1, air dark (MONOCHROME2).

    Parameters
    ----------
    lungs
        Latent severity of the lungs; opacity grows with it.
    heart
        Latent severity of the heart; the heart's shadow widens with it.
    portable
        Antero-posterior bedside film: larger heart, less contrast.
    """
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    x = x + rng.normal(0, 0.02)
    body = _ellipse(x, y, 0.0, 0.25, 0.93, 1.35)
    height = 0.62 + rng.normal(0, 0.03)
    left = _ellipse(x, y, 0.40, -0.08, 0.31, height)
    right = _ellipse(x, y, -0.40, -0.10, 0.33, height)
    field = np.clip(left + right, 0, 1) * (1 / (1 + np.exp(18 * (y - 0.48 - 0.12 * np.cos(3 * x)))))
    image = 0.06 + 0.62 * body - 0.44 * field
    width = 0.24 + 0.05 * np.logaddexp(0, heart) + (0.05 if portable else 0.0)
    image += 0.34 * _ellipse(x, y, 0.12, 0.22, width, 0.34) * body
    image += 0.20 * np.exp(-((x / 0.10) ** 2)) * body
    ribs = np.sin(15 * (y + 0.28 * np.abs(x) ** 1.5) + rng.uniform(0, 0.6))
    image += 0.05 * np.clip(ribs, 0, 1) * field
    coarse = gaussian_filter(rng.normal(size=(24, 24)), 1.8)
    coarse = (coarse - coarse.min()) / np.ptp(coarse)
    texture = zoom(coarse, size / 24, order=1)[:size, :size]
    opacity = float(np.clip(0.16 * np.logaddexp(0, 1.6 * lungs - 0.4), 0, 0.75))
    base = 0.5 + 0.5 * np.clip(y + 0.2, -1, 1)
    image += opacity * field * (0.35 + 0.9 * texture * base)
    image += rng.normal(0, 0.012, size=image.shape)
    if portable:
        image = 0.12 + 0.80 * image
    return np.clip(image, 0, 1)


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
    parts = [
        generate_uid(prefix=UID_PREFIX, entropy_srcs=[str(seed), image, part])
        for part in ("study", "series", "instance")
    ]
    return Uids(*[str(part) for part in parts])


def make_dicom(
    pixels: NDArray[np.float64] | None,
    *,
    uids: Uids,
    patient_id: str,
    taken: datetime,
    view: str,
    bits: int = 12,
    inverted: bool = False,
    syntax: str = "explicit",
) -> Dataset:
    """Return a DX dataset.

    Parameters
    ----------
    pixels
        Image in 0 to 1, air dark, shape ``[rows, columns]``; None leaves pixel data out (a planted fault).
    taken
        Aware time of exposure; its offset goes to Timezone Offset From UTC.
    view
        ``AP``, ``PA`` or ``LL``.
    bits
        Bits stored, 12 or 16.
    inverted
        Store as MONOCHROME1.
    syntax
        ``explicit``, ``rle`` or ``jpeg-ls``.
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
    data.PatientID, data.PatientName = patient_id, f"Synthetic^{patient_id}"
    data.PatientComments = "Synthetic test data of the Nightingale demo hospital"
    data.ImageComments = "SYNTHETIC: drawn by a program, shows no patient"
    data.PatientBirthDate, data.PatientSex = "", "O"
    data.Modality, data.BodyPartExamined, data.ViewPosition = "DX", "CHEST", view
    data.PresentationIntentType = "FOR PRESENTATION"
    data.ImageType = ["DERIVED", "PRIMARY"]
    data.Manufacturer = "Nightingale demo hospital"
    data.StudyDate = data.SeriesDate = data.ContentDate = data.AcquisitionDate = taken.strftime("%Y%m%d")
    data.StudyTime = data.SeriesTime = data.ContentTime = data.AcquisitionTime = taken.strftime("%H%M%S")
    data.TimezoneOffsetFromUTC = taken.strftime("%z")
    data.AccessionNumber, data.StudyID = "", "1"
    data.SeriesNumber, data.InstanceNumber = 1, 1
    data.ReferringPhysicianName = ""
    data.PatientOrientation = ["L", "F"]
    data.BurnedInAnnotation = "NO"
    data.LossyImageCompression = "00"
    if pixels is None:
        return data
    top = 2**bits - 1
    stored = np.round((1 - pixels if inverted else pixels) * top * 0.9).astype(np.uint16)
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME1" if inverted else "MONOCHROME2"
    data.Rows, data.Columns = stored.shape
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, bits, bits - 1, 0
    data.ImagerPixelSpacing = [1.4, 1.4]
    data.PixelIntensityRelationship, data.PixelIntensityRelationshipSign = "LOG", -1 if inverted else 1
    data.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    data.RescaleIntercept, data.RescaleSlope, data.RescaleType = 0, 1, "US"
    data.WindowCenter, data.WindowWidth = int(top * 0.45), int(top * 0.9)
    data.PixelData = stored.tobytes()
    if syntax == "rle":
        data.compress(RLELossless, generate_instance_uid=False)
    elif syntax == "jpeg-ls":
        data.compress(JPEGLSLossless, generate_instance_uid=False)
    return data


def write_dicom(data: Dataset, archive: Path, uids: Uids) -> Path:
    """Write a dataset below the archive and return its path."""
    path = archive / uids.path
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path
