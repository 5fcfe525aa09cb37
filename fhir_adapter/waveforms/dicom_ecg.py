"""DICOM ECG waveforms (PS3.3 A.34: 12-lead, general ECG; multiplex groups of a Waveform Sequence)."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError

from fhir_adapter.errors import Refusal
from fhir_adapter.images.headers import refuse_syntax
from fhir_adapter.limits import Limits
from fhir_adapter.waveforms.signal import MILLIVOLT, Signal, build_signal, check_rate, lead_name
from validation.reasons import Reason

SOP_CLASSES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.9.1.1",  # 12-lead ECG Waveform Storage
        "1.2.840.10008.5.1.4.1.1.9.1.2",  # General ECG Waveform Storage
        "1.2.840.10008.5.1.4.1.1.9.1.3",  # Ambulatory ECG Waveform Storage
    }
)
_SAMPLE_TYPES = {"SS": "<i2", "US": "<u2", "SB": "<i1", "UB": "<u1"}


def is_dicom(data: bytes) -> bool:
    """Tell whether bytes start like a DICOM file (PS3.10 7.1)."""
    return data[128:132] == b"DICM"


def read_dicom_ecg(data: bytes, limits: Limits) -> Signal:
    """Return the longest rhythm of a DICOM ECG.

    Raises
    ------
    Refusal
        ``ecg.*`` or ``image.syntax_not_supported``.
    """
    refuse_syntax(data)
    try:
        dataset = pydicom.dcmread(io.BytesIO(data), force=False)
        return _read(dataset, limits)
    except Refusal:
        raise
    except RecursionError:
        raise Refusal(Reason.ECG_UNREADABLE, "nested too deep") from None
    except (
        InvalidDicomError,
        ValueError,
        KeyError,
        AttributeError,
        TypeError,
        IndexError,
        EOFError,
        OSError,
        NotImplementedError,
        OverflowError,
    ) as error:
        raise Refusal(Reason.ECG_UNREADABLE, type(error).__name__) from None


def _read(dataset: pydicom.Dataset, limits: Limits) -> Signal:
    if str(dataset.get("SOPClassUID", "")) not in SOP_CLASSES:
        raise Refusal(Reason.ATTACHMENT_TYPE_NOT_SUPPORTED, "DICOM object is no ECG")
    groups = list(dataset.get("WaveformSequence", []))
    if not groups:
        raise Refusal(Reason.ECG_UNREADABLE, "no waveform")
    # a median beat is a short group beside the rhythm of ten seconds
    group = max(groups, key=lambda item: int(item.NumberOfWaveformSamples) / float(item.SamplingFrequency))
    rate = float(group.SamplingFrequency)
    check_rate(rate, limits)
    n_channels, n_samples = int(group.NumberOfWaveformChannels), int(group.NumberOfWaveformSamples)
    if not 1 <= n_channels <= limits.max_leads or not n_samples >= 1:
        raise Refusal(Reason.ECG_HEADER_INVALID, "channels or samples")
    if n_samples > limits.max_samples:
        raise Refusal(Reason.ATTACHMENT_TOO_LARGE, "samples")
    kind = _SAMPLE_TYPES.get(str(group.WaveformSampleInterpretation))
    if kind is None:
        raise Refusal(Reason.ECG_HEADER_INVALID, "sample interpretation")
    raw = bytes(group.WaveformData)
    dtype = np.dtype(kind)
    if len(raw) < n_channels * n_samples * dtype.itemsize:
        raise Refusal(Reason.ECG_SIGNAL_TRUNCATED)
    counts = np.frombuffer(raw, dtype=dtype, count=n_channels * n_samples).reshape(n_samples, n_channels)
    definitions = list(group.ChannelDefinitionSequence)
    if len(definitions) != n_channels:
        raise Refusal(Reason.ECG_HEADER_INVALID, "channel definitions")
    padding = _padding(group, dtype)
    channels: dict[str, np.ndarray] = {}
    for number, definition in enumerate(definitions):
        lead = _lead(definition)
        if lead is None:
            continue
        if lead in channels:
            raise Refusal(Reason.ECG_HEADER_INVALID, "a lead twice")
        column = counts[:, number].astype(np.float64)
        if padding is not None:
            column[counts[:, number] == padding] = np.nan
        channels[lead] = column * _millivolt_per_count(definition) + _baseline(definition)
    return build_signal(channels, sampling_rate=rate, carrier="dicom", limits=limits)


def _lead(definition: pydicom.Dataset) -> str | None:
    sources = definition.get("ChannelSourceSequence") or []
    texts = [str(source.get("CodeMeaning", "")) for source in sources] + [
        str(definition.get("ChannelLabel", ""))
    ]
    return next((name for name in map(lead_name, texts) if name), None)


def _millivolt_per_count(definition: pydicom.Dataset) -> float:
    """Return sensitivity × correction factor in mV, after checking that it is stated."""
    units = definition.get("ChannelSensitivityUnitsSequence") or []
    if definition.get("ChannelSensitivity") is None or not units:
        raise Refusal(Reason.ECG_HEADER_INVALID, "channel sensitivity")
    factor = _unit_factor(units)
    sensitivity = float(definition.ChannelSensitivity) * float(
        definition.get("ChannelSensitivityCorrectionFactor") or 1.0
    )
    if not np.isfinite(sensitivity) or sensitivity == 0:
        raise Refusal(Reason.ECG_HEADER_INVALID, "channel sensitivity")
    return sensitivity * factor


def _baseline(definition: pydicom.Dataset) -> float:
    """Return the channel baseline, which is in the sensitivity's unit (PS3.3 C.10.9.1.4.3)."""
    return float(definition.get("ChannelBaseline") or 0.0) * _unit_factor(
        definition.ChannelSensitivityUnitsSequence
    )


def _unit_factor(units: Any) -> float:
    unit = str(units[0].get("CodeValue", ""))
    if unit not in MILLIVOLT:
        raise Refusal(Reason.UNIT_UNKNOWN, "channel sensitivity")
    return MILLIVOLT[unit]


def _padding(group: pydicom.Dataset, dtype: np.dtype) -> int | None:
    """Return the value that means "no sample", where one is given."""
    value = group.get("WaveformPaddingValue")
    if isinstance(value, bytes) and len(value) >= dtype.itemsize:
        return int(np.frombuffer(value, dtype=dtype, count=1)[0])
    return int(value) if isinstance(value, int) else None
