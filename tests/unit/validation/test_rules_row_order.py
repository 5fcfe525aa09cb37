"""Each reason lands on its own row, also in tables large enough for polars to work in parallel."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from validation.contracts import empty
from validation.rules import judge_events


def test_reasons_land_on_their_rows_in_large_tables() -> None:
    size = 60_000
    rng = np.random.default_rng(7)
    start = datetime(2026, 1, 14, tzinfo=UTC)
    codes = [f"feature_{number}" for number in range(25)]
    values = rng.normal(size=size).astype(np.float32)
    times = [start + timedelta(seconds=second) for second in range(size)]
    events = pl.DataFrame(
        {
            "subject_id": np.arange(size),
            "time": times,
            "code": [codes[number] for number in rng.integers(0, 25, size)],
            "numeric_value": values,
            "text_value": None,
            "available_time": times,
            "encounter_id": "stay",
            "source_ref": [f"Observation/{number}" for number in range(size)],
            "derived": False,
        },
        schema=empty("events").schema,
    )
    limits = pl.DataFrame({"code": codes, "low": -3.0, "high": 3.0})
    judged = judge_events(events, limits)
    outside = events.filter(pl.col("numeric_value").abs() > 3)
    assert judged.quarantine["source_ref"].to_list() == outside["source_ref"].to_list()
    assert outside.height > 50 and judged.accepted["numeric_value"].abs().max() <= 3
