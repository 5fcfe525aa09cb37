"""ECG files and resources that tests build, break and read again."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

LEADS = ("I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")
MDC = dict(zip(LEADS, (131329, 131330, 131389, 131390, 131391, 131392, *range(131331, 131337)), strict=True))


def samples(length: int = 500, seed: int = 0) -> np.ndarray:
    """Digital samples [length, 12], int16."""
    draw = np.random.default_rng(seed)
    return np.round(
        500 * np.sin(np.arange(length)[:, None] / 9 + np.arange(12)) + draw.normal(0, 20, (length, 12))
    ).astype(np.int16)


def header(
    digital: np.ndarray,
    *,
    name: str = "rec",
    rate: str = "500",
    gain: str = "1000.0(0)/mV",
    file: str = "rec.dat",
) -> str:
    """A WFDB header in format 16 with true checksums."""
    lines = [f"{name} {digital.shape[1]} {rate} {digital.shape[0]}"]
    for number in range(digital.shape[1]):
        column = digital[:, number].astype(np.int64)
        checksum = (int(column.sum()) + 32768) % 65536 - 32768
        lines.append(f"{file} 16 {gain} 16 0 {column[0]} {checksum} 0 {LEADS[number]}")
    return "\n".join(lines) + "\n"


def attachment(data: bytes, **fields: Any) -> dict[str, Any]:
    return {"data": base64.b64encode(data).decode()} | fields


def document(*attachments: dict[str, Any], key: str = "d1", **fields: Any) -> dict[str, Any]:
    return {
        "resourceType": "DocumentReference",
        "id": key,
        "status": "current",
        "subject": {"reference": "Patient/p1"},
        "date": "2026-01-01T10:05:00Z",
        "context": {
            "period": {"start": "2026-01-01T10:00:00Z"},
            "encounter": [{"reference": "Encounter/e1"}],
        },
        "content": [{"attachment": item} for item in attachments],
    } | fields


def sampled(digital: np.ndarray, *, key: str = "o1", **sampled_fields: Any) -> dict[str, Any]:
    """An Observation with one SampledData component a lead, in microvolts."""
    return {
        "resourceType": "Observation",
        "id": key,
        "status": "final",
        "code": {"coding": [{"system": "urn:oid:2.16.840.1.113883.6.24", "code": "131328"}]},
        "subject": {"reference": "Patient/p1"},
        "effectiveDateTime": "2026-01-01T10:00:00Z",
        "component": [
            {
                "code": {"coding": [{"system": "urn:oid:2.16.840.1.113883.6.24", "code": str(MDC[lead])}]},
                "valueSampledData": {
                    "origin": {"value": 0, "unit": "uV", "system": "http://unitsofmeasure.org", "code": "uV"},
                    "period": 2,
                    "factor": 5,
                    "dimensions": 1,
                    "data": " ".join(map(str, digital[:, number])),
                }
                | sampled_fields,
            }
            for number, lead in enumerate(LEADS)
        ],
    }
