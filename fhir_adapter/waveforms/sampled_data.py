"""SampledData (https://hl7.org/fhir/R4/datatypes.html#SampledData) of an ECG Observation.

Physical value = origin + factor × data, in the origin's unit. ``E`` is an error (NaN); ``L`` and ``U`` lie
outside the recorder's range and take its limit, or NaN where no limit is given. Leads are named by MDC code
(131328 + lead number, ISO 11073-10101) or by the code's display or text.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from fhir_adapter.errors import Refusal
from fhir_adapter.limits import Limits
from fhir_adapter.references import is_one_of
from fhir_adapter.waveforms.signal import MILLIVOLT, Signal, build_signal, lead_name
from validation.reasons import Reason

MDC_SYSTEM = "urn:oid:2.16.840.1.113883.6.24"
MDC_LEADS = {
    131329: "I",
    131330: "II",
    131331: "V1",
    131332: "V2",
    131333: "V3",
    131334: "V4",
    131335: "V5",
    131336: "V6",
    131389: "III",
    131390: "aVR",
    131391: "aVL",
    131392: "aVF",
}
_DATA = re.compile(r"[0-9.+\-eELU\s]*")


def read_sampled_data(resource: dict[str, Any], limits: Limits) -> tuple[Signal, list[int]]:
    """Return the ECG of an Observation, and the numbers of components that hold no waveform.

    Raises
    ------
    Refusal
        If a lead cannot be read: an ECG without one of its leads would look like another ECG.
    """
    carriers = [(0, resource)] if resource.get("valueSampledData") is not None else []
    components = resource.get("component")
    parts = components if isinstance(components, list) else []
    others = []
    for number, part in enumerate(parts, start=1):
        if isinstance(part, dict) and part.get("valueSampledData") is not None:
            carriers.append((number, part))
        else:
            others.append(number)
    channels: dict[str, np.ndarray] = {}
    rates = set()
    for _, part in carriers:
        lead = _lead(part.get("code"))
        if lead is None:
            raise Refusal(Reason.ECG_LEADS_MISSING, "a SampledData without a known lead code")
        if lead in channels:
            raise Refusal(Reason.ECG_HEADER_INVALID, "a lead twice")
        channels[lead], rate = _channel(part["valueSampledData"], limits)
        rates.add(rate)
    if len(rates) != 1:
        raise Refusal(Reason.ECG_HEADER_INVALID, "leads of different periods")
    return build_signal(channels, sampling_rate=rates.pop(), carrier="sampled-data", limits=limits), others


def _lead(code: object) -> str | None:
    if not isinstance(code, dict):
        return None
    found = code.get("coding")
    for coding in found if isinstance(found, list) else []:
        if not isinstance(coding, dict):
            continue
        key = coding.get("code")
        if (
            coding.get("system") == MDC_SYSTEM
            and isinstance(key, str)
            and re.fullmatch(r"[0-9]{1,9}", key)
            and int(key) in MDC_LEADS
        ):
            return MDC_LEADS[int(key)]
        for text in (key, coding.get("display")):
            if isinstance(text, str) and (name := lead_name(text)):
                return name
    text = code.get("text")
    return lead_name(text) if isinstance(text, str) else None


def _channel(data: object, limits: Limits) -> tuple[np.ndarray, float]:
    """Return samples in mV and the sampling rate."""
    if not isinstance(data, dict):
        raise Refusal(Reason.ECG_HEADER_INVALID, "SampledData")
    found = data.get("origin")
    origin = found if isinstance(found, dict) else {}
    period = _number(data.get("period"), "period")
    factor = 1.0 if data.get("factor") is None else _number(data["factor"], "factor")
    if period <= 0 or factor == 0:
        raise Refusal(Reason.ECG_HEADER_INVALID, "period or factor")
    if data.get("dimensions") != 1:
        raise Refusal(Reason.ECG_HEADER_INVALID, "dimensions other than 1 name no leads")
    unit = origin.get("code") or origin.get("unit")
    if unit is None:
        raise Refusal(Reason.UNIT_MISSING, "SampledData.origin")
    if not is_one_of(unit, MILLIVOLT):
        raise Refusal(Reason.UNIT_UNKNOWN, "SampledData.origin")
    zero = _number(origin.get("value"), "origin.value")
    text = data.get("data")
    if not isinstance(text, str) or not text.strip():
        raise Refusal(Reason.ECG_UNREADABLE, "SampledData.data")
    if len(text) > 32 * limits.max_samples or text.count(" ") >= limits.max_samples:
        raise Refusal(Reason.ATTACHMENT_TOO_LARGE, "SampledData.data")
    physical = _decode(text) * factor + zero
    for token, name in (("L", "lowerLimit"), ("U", "upperLimit")):
        if token in text:
            limit = math.nan if data.get(name) is None else _number(data[name], name)
            physical[np.array(text.split()) == token] = limit
    return physical * MILLIVOLT[unit], 1000.0 / period


def _decode(text: str) -> np.ndarray:
    if _DATA.fullmatch(text) is None:
        raise Refusal(Reason.ECG_UNREADABLE, "SampledData.data")
    tokens = text.split()
    if "E" in text or "L" in text or "U" in text:
        tokens = ["nan" if token in {"E", "L", "U"} else token for token in tokens]
    try:
        return np.array(tokens, dtype=np.float64)
    except ValueError:
        raise Refusal(Reason.ECG_UNREADABLE, "SampledData.data") from None


def _number(value: object, element: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise Refusal(Reason.ECG_HEADER_INVALID, f"SampledData.{element}")
    return float(value)
