"""The adapter's decoders for MIMIC-IV-ECG and MIMIC-CXR, so that training reads arrays as the night does."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from fhir_adapter.errors import Refusal
from fhir_adapter.images.decode import decode_image, shrink
from fhir_adapter.limits import Limits
from fhir_adapter.waveforms.archive import read_bounded, resolve_inside
from fhir_adapter.waveforms.wfdb_record import read_wfdb
from modelling.mimic.archives import Picture, Signal, UnusableError
from modelling.mimic.cxr import map_cxr
from modelling.mimic.ecg import map_ecg
from modelling.mimic.reader import Beside
from validation.reasons import Reason

LIMITS = Limits()


def archives(*, ecg: Path | None, cxr: Path | None) -> list[Beside]:
    """Return what :func:`modelling.mimic.map_mimic` maps beside the tables, bound to folders and decoders."""
    parts: list[Beside] = []
    if ecg is not None:
        parts.append(partial(map_ecg, ecg, read_signal=read_signal))
    if cxr is not None:
        parts.append(partial(map_cxr, cxr, read_picture=read_picture))
    return parts


def read_signal(root: Path, record: str) -> Signal:
    """Return the ECG of a WFDB record below a root, whose path is given without suffix.

    Raises
    ------
    UnusableError
        ``attachment.*`` or ``ecg.*``.
    """

    def beside(name: str) -> bytes:
        path = resolve_inside(root, f"{record.rpartition('/')[0]}/{name}".lstrip("/"))
        return read_bounded(path, LIMITS.max_attachment_bytes)

    try:
        found = read_wfdb(beside(f"{record.rpartition('/')[2]}.hea"), beside, LIMITS)
    except Refusal as refusal:
        raise UnusableError(refusal.reason, refusal.detail) from None
    return Signal(leads=found.leads, samples=found.samples, sampling_rate=found.sampling_rate)


def read_picture(root: Path, name: str) -> Picture:
    """Return the radiograph of a JPEG or DICOM file below a root.

    MIMIC-CXR-JPG's pictures are MONOCHROME2 of eight bits already; they are shrunk as DICOM pixels are.

    Raises
    ------
    UnusableError
        ``image.*`` or ``attachment.*``.
    """
    try:
        path = resolve_inside(root, name)
        if path.suffix == ".dcm":
            image = decode_image(read_bounded(path, LIMITS.max_attachment_bytes), LIMITS)
            return Picture(pixels=image.pixels, view=image.view, pixel_spacing=image.pixel_spacing)
        return Picture(pixels=shrink(_grey(path), LIMITS.longest_side)[0], view=None, pixel_spacing=None)
    except Refusal as refusal:
        missing = refusal.reason is Reason.ATTACHMENT_MISSING
        reason = Reason.IMAGE_NOT_FOUND if missing else refusal.reason
        raise UnusableError(reason, refusal.detail) from None


def _grey(path: Path) -> np.ndarray:
    try:
        with Image.open(path, formats=["JPEG"]) as image:
            if image.width * image.height > LIMITS.max_pixels:
                raise Refusal(Reason.IMAGE_TOO_LARGE)
            return np.asarray(image.convert("L"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Refusal(Reason.IMAGE_UNREADABLE, type(error).__name__) from None
