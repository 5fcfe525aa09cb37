"""What every ECG carrier is turned into."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from fhir_adapter.errors import Refusal
from fhir_adapter.limits import Limits
from validation.reasons import Reason

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""Standard order of the twelve leads."""

MILLIVOLT = {"mV": 1.0, "uV": 1e-3, "µV": 1e-3, "μV": 1e-3, "V": 1e3, "nV": 1e-6}
"""Factor to millivolt by UCUM code or the usual spelling."""

_BY_LOWER = {lead.lower(): lead for lead in LEADS}


@dataclass(frozen=True)
class Signal:
    """One ECG.

    Attributes
    ----------
    leads
        Names in standard order.
    samples
        float32 ``[leads, samples]`` in mV; NaN where the recorder gave no value.
    sampling_rate
        In Hz.
    carrier
        ``sampled-data``, ``wfdb`` or ``dicom``.
    """

    leads: tuple[str, ...]
    samples: np.ndarray
    sampling_rate: float
    carrier: str


def lead_name(text: str) -> str | None:
    """Return the standard name of a lead, or None.

    Examples
    --------
    >>> lead_name("AVR"), lead_name("Lead II (Einthoven)"), lead_name("MDC_ECG_LEAD_V1"), lead_name("Pleth")
    ('aVR', 'II', 'V1', None)
    """
    plain = re.sub(r"\(.*?\)", "", text)
    plain = re.sub(r"(?i)mdc_ecg_(elec_potl|lead)_?|\b(ecg|ekg|lead)\b", " ", plain).strip(" _-:").lower()
    return _BY_LOWER.get(plain)


def build_signal(
    channels: dict[str, np.ndarray], *, sampling_rate: float, carrier: str, limits: Limits
) -> Signal:
    """Put channels into standard order after checking rate and lengths.

    Parameters
    ----------
    channels
        Lead name to samples in mV.

    Raises
    ------
    Refusal
        ``ecg.leads_missing`` or ``ecg.header_invalid``.
    """
    leads = tuple(lead for lead in LEADS if lead in channels)
    if not leads:
        raise Refusal(Reason.ECG_LEADS_MISSING, "no standard lead")
    check_rate(sampling_rate, limits)
    lengths = {len(channels[lead]) for lead in leads}
    if len(lengths) != 1 or lengths == {0}:
        raise Refusal(Reason.ECG_HEADER_INVALID, "leads of different or no length")
    with np.errstate(over="ignore"):
        samples = np.stack([channels[lead] for lead in leads]).astype(np.float32)
    if np.isinf(samples).any():
        raise Refusal(Reason.ECG_HEADER_INVALID, "values beyond float32")
    if not np.isfinite(samples).any():
        raise Refusal(Reason.ECG_UNREADABLE, "no valid sample")
    return Signal(leads, samples, float(sampling_rate), carrier)


def check_rate(sampling_rate: float, limits: Limits) -> None:
    """Refuse a sampling rate that no ECG recorder has."""
    if not 1.0 <= sampling_rate <= limits.max_sampling_rate:
        raise Refusal(Reason.ECG_HEADER_INVALID, "sampling rate")
