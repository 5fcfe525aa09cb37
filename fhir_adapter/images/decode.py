"""DICOM bytes to eight-bit MONOCHROME2 pixels.

Modality LUT or rescale, then VOI LUT or window (PS3.3 C.11.1, C.11.2), MONOCHROME1 turned around, scaled to
0-255, shrunk by area averaging. Sizes are checked against the limits before any pixel is decoded.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import pydicom
from PIL import Image
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_modality_lut, apply_voi

from fhir_adapter.errors import Refusal
from fhir_adapter.images.headers import check_chest, refuse_syntax
from fhir_adapter.limits import Limits
from validation.reasons import Reason


@dataclass(frozen=True)
class DecodedImage:
    """One radiograph.

    Attributes
    ----------
    pixels
        uint8 ``[rows, columns]``, air dark.
    view
        ``AP``, ``PA`` or None.
    pixel_spacing
        Millimetres between pixel centres after shrinking, or None.
    """

    pixels: np.ndarray
    view: str | None
    pixel_spacing: float | None
    study_uid: str
    series_uid: str
    instance_uid: str


def decode_image(data: bytes, limits: Limits) -> DecodedImage:
    """Decode one chest radiograph.

    Raises
    ------
    Refusal
        ``image.*``.
    """
    refuse_syntax(data)
    try:
        dataset = pydicom.dcmread(io.BytesIO(data), force=False)
        view = check_chest(dataset)
        _check_size(dataset, limits)
        pixels = _eight_bits(dataset)
    except Refusal:
        raise
    except RecursionError:
        raise Refusal(Reason.IMAGE_UNREADABLE, "nested too deep") from None
    except MemoryError:
        raise Refusal(Reason.IMAGE_TOO_LARGE, "memory") from None
    except InvalidDicomError:
        raise Refusal(Reason.IMAGE_UNREADABLE, "InvalidDicomError") from None
    except Exception as error:
        raise Refusal(Reason.IMAGE_UNREADABLE, type(error).__name__) from None
    shrunk, scale = shrink(pixels, limits.longest_side)
    spacing = _spacing(dataset)
    return DecodedImage(
        pixels=shrunk,
        view=view,
        pixel_spacing=None if spacing is None else spacing * scale,
        study_uid=str(dataset.get("StudyInstanceUID", "")),
        series_uid=str(dataset.get("SeriesInstanceUID", "")),
        instance_uid=str(dataset.get("SOPInstanceUID", "")),
    )


def _check_size(dataset: pydicom.Dataset, limits: Limits) -> None:
    if "PixelData" not in dataset:
        raise Refusal(Reason.IMAGE_NO_PIXELS)
    rows, columns = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    frames = int(dataset.get("NumberOfFrames") or 1)
    samples = int(dataset.get("SamplesPerPixel") or 1)
    if rows < 1 or columns < 1 or frames < 1:
        raise Refusal(Reason.IMAGE_UNREADABLE, "Rows, Columns or NumberOfFrames")
    if rows * columns * frames * samples > limits.max_pixels:
        raise Refusal(Reason.IMAGE_TOO_LARGE)
    if frames != 1:
        raise Refusal(Reason.IMAGE_UNREADABLE, "more than one frame")
    if not dataset.PixelData:
        raise Refusal(Reason.IMAGE_NO_PIXELS)


def _eight_bits(dataset: pydicom.Dataset) -> np.ndarray:
    raw = dataset.pixel_array
    photometric = str(dataset.PhotometricInterpretation)
    if raw.ndim == 3 and raw.shape[2] == 3:  # pydicom has turned YBR into RGB
        raw = np.rint(raw @ np.array([0.299, 0.587, 0.114])).astype(raw.dtype)
    if raw.ndim != 2 or photometric == "PALETTE COLOR":
        raise Refusal(Reason.IMAGE_UNREADABLE, "PhotometricInterpretation")
    padding = dataset.get("PixelPaddingValue")
    padded = np.zeros(raw.shape, dtype=bool) if padding is None else raw == padding
    values = np.asarray(apply_modality_lut(raw, dataset), dtype=np.float64)
    centre = dataset.get("WindowCenter")
    if dataset.get("VOILUTSequence"):
        values = np.asarray(apply_voi(np.rint(values).astype(np.int64), dataset), dtype=np.float64)
        bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        low, high = 0.0, float(2**bits - 1)
    elif centre is not None and dataset.get("WindowWidth") is not None:
        values = _window(
            values, _first(centre), _first(dataset.WindowWidth), str(dataset.get("VOILUTFunction", "LINEAR"))
        )
        low, high = 0.0, 1.0
    else:
        inside = values[~padded] if (~padded).any() else values
        low, high = float(inside.min()), float(inside.max())
    span = high - low
    unit = np.clip((values - low) / span, 0.0, 1.0) if span > 0 else np.zeros_like(values)
    if photometric == "MONOCHROME1":
        unit = 1.0 - unit
    unit[padded] = 0.0
    return np.rint(unit * 255.0).astype(np.uint8)


def _window(values: np.ndarray, centre: float, width: float, function: str) -> np.ndarray:
    """Return values in [0, 1] after a window (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""
    if function == "SIGMOID" and width > 0:
        return 1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - centre) / width, -700, 700)))
    if function == "LINEAR_EXACT" and width > 0:
        return np.clip((values - centre) / width + 0.5, 0.0, 1.0)
    if width < 1:
        raise Refusal(Reason.IMAGE_UNREADABLE, "WindowWidth")
    if width == 1:
        return (values > centre - 0.5).astype(np.float64)
    return np.clip((values - (centre - 0.5)) / (width - 1.0) + 0.5, 0.0, 1.0)


def _first(value: object) -> float:
    """Return the first of one or several numbers."""
    if isinstance(value, (str, int, float)):
        return float(value)
    return float(next(iter(value)))  # type: ignore[call-overload]


def shrink(pixels: np.ndarray, longest_side: int) -> tuple[np.ndarray, float]:
    """Shrink to a longest side by area averaging; return pixels and how much coarser they are."""
    rows, columns = pixels.shape
    scale = max(rows, columns) / longest_side
    if scale <= 1:
        return pixels, 1.0
    size = (max(1, round(columns / scale)), max(1, round(rows / scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX)), scale


def _spacing(dataset: pydicom.Dataset) -> float | None:
    for name in ("PixelSpacing", "ImagerPixelSpacing"):
        value = dataset.get(name)
        if value is not None:
            try:
                spacing = _first(value)
            except (TypeError, ValueError, StopIteration):
                continue
            if np.isfinite(spacing) and spacing > 0:
                return spacing
    return None
