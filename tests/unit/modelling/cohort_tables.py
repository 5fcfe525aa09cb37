"""Encounters, outcomes and events of a few stays, by hours from one start."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl

from validation.contracts import empty
from validation.contracts.store import check_table

START = datetime(2150, 3, 1, 8, tzinfo=UTC)


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def stays(*rows: dict[str, Any]) -> pl.DataFrame:
    schema = dict(empty("encounters").schema)
    shared = {
        "kind": "icu",
        "status": "finished",
        "patient_ref": "p",
        "encounter_ref": "e",
        "moves": [],
        "birth_date": date(2090, 1, 1),
        "sex": "female",
        "source_file": "f",
        "source_line": 1,
    }
    full = [dict.fromkeys(schema) | shared | row for row in rows]
    return check_table(pl.DataFrame(full, schema=schema), "encounters")


def stay(name: str = "stay", subject: int = 1, hours: float = 60, **fields: Any) -> dict[str, Any]:
    return {"encounter_id": name, "subject_id": subject, "start": START, "end": at(hours)} | fields


def outcomes(*rows: tuple[str, int, bool, float | None]) -> pl.DataFrame:
    frame = pl.DataFrame(
        [
            {
                "encounter_id": name,
                "subject_id": subject,
                "discharge_time": None,
                "death_time": None if death is None else at(death),
                "died_in_hospital": died,
                "icu_days": None,
            }
            for name, subject, died, death in rows
        ],
        schema=dict(empty("outcomes").schema),
    )
    return check_table(frame, "outcomes")


def events(*rows: tuple[str, float, float], subject: int = 1) -> pl.DataFrame:
    frame = pl.DataFrame(
        [
            {
                "subject_id": subject,
                "time": at(hour),
                "code": code,
                "numeric_value": value,
                "text_value": None,
                "available_time": at(hour),
                "encounter_id": "stay",
                "source_ref": f"x:{n}",
                "derived": False,
            }
            for n, (code, hour, value) in enumerate(rows)
        ],
        schema=dict(empty("events").schema),
    )
    return check_table(frame, "events")


def charted(hours: float) -> tuple[tuple[str, float, float], ...]:
    """Return a heart rate every hour, as a monitored patient has."""
    return tuple(("heart_rate", hour + 0.25, 80.0) for hour in range(int(hours)))
