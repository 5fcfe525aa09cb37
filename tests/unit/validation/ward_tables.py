"""A small ward in contract tables, for the tests of this folder."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from validation.contracts import empty

NIGHT = datetime(2026, 1, 19, 4, tzinfo=UTC)
FEATURES = ("heart_rate", "systolic_bp", "diastolic_bp", "creatinine")
LIMITS = pl.DataFrame(
    {
        "code": [*FEATURES, "gcs_total", "gcs_eye", "gcs_verbal", "gcs_motor", "mean_bp"],
        "low": [0.0, 0, 0, 0, 3, 1, 1, 1, 14],
        "high": [350.0, 375, 375, 66, 15, 4, 5, 6, 330],
    }
)
TYPICAL = {
    "heart_rate": (80, 12),
    "systolic_bp": (120, 10),
    "diastolic_bp": (70, 6),
    "creatinine": (1.0, 0.2),
}


def table(name: str, rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Return a contract table from partial rows; missing columns are null."""
    return pl.concat([empty(name), pl.DataFrame(rows)], how="diagonal_relaxed") if rows else empty(name)


def event(
    subject: int, code: str, value: float | None, *, hours_ago: float = 1.0, **fields: Any
) -> dict[str, Any]:
    """Return one row of the events table."""
    time = NIGHT - timedelta(hours=hours_ago)
    row = {
        "subject_id": subject,
        "time": time,
        "code": code,
        "numeric_value": value,
        "available_time": time + timedelta(minutes=10),
        "encounter_id": f"e{subject}",
        "source_ref": f"Observation/{subject}-{code}-{hours_ago}",
        "derived": False,
    }
    return row | fields


def ward(patients: int = 24, *, seed: int = 0) -> dict[str, pl.DataFrame]:
    """Return the tables of a night with two wards of ten or more and one of three patients."""
    rng = np.random.default_rng(seed)
    wards = ["north" if i < 11 else "south" if i < patients - 3 else "tiny" for i in range(patients)]
    encounters = [
        {
            "encounter_id": f"e{i}",
            "subject_id": i,
            "patient_ref": f"Patient/p{i}",
            "encounter_ref": f"Encounter/e{i}",
            "kind": "hospital",
            "status": "in-progress",
            "start": NIGHT - timedelta(hours=60),
            "ward": wards[i],
            "moves": [],
            "sex": "female",
            "source_file": "Encounter.ndjson",
            "source_line": i + 1,
        }
        for i in range(patients)
    ]
    samples = [
        {
            "subject_id": i,
            "prediction_time": NIGHT,
            "encounter_id": f"e{i}",
            "task": "in-hospital-mortality",
            "lookback_start": NIGHT - timedelta(hours=48),
        }
        for i in range(patients)
    ]
    events = [
        event(i, code, float(rng.normal(*TYPICAL[code])), hours_ago=hours)
        for i in range(patients)
        for hours in range(47, 0, -4)
        for code in FEATURES
    ]
    recordings = [
        {
            "recording_id": f"r{i}",
            "subject_id": i,
            "time": NIGHT - timedelta(hours=9),
            "available_time": NIGHT - timedelta(hours=8),
            "sampling_rate": 250.0,
            "leads": ["I"],
            "samples": 2500,
            "unit": "mV",
            "array_path": f"arrays/{i}.npy",
            "array_sha256": f"{i:064x}",
            "carrier": "wfdb",
            "source_ref": f"DocumentReference/{i}",
            "source_file": "DocumentReference.ndjson",
            "source_line": i + 1,
        }
        for i in range(0, patients, 2)
    ]
    refused = [
        {
            "stage": "mapping",
            "reason": "unit.missing",
            "source_ref": "Observation/x",
            "feature": "heart_rate",
            "whole": True,
        }
    ]
    return {
        "events": table("events", events),
        "encounters": table("encounters", encounters),
        "samples": table("samples", samples),
        "quarantine": table("quarantine", refused),
        "recordings": table("recordings", recordings),
        "images": empty("images"),
    }
