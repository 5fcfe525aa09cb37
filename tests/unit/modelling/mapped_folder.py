"""A mapped folder of simulated stays with outcomes, as the commands read it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import polars as pl
from simulated_stays import NOON, ward

from validation.contracts import empty, write_table


def write_mapped(data: Path, *, n: int = 80, seed: int = 9, without_values: int | None = None) -> None:
    """Write encounters, outcomes and events; one patient may have no value at all."""
    samples, events, encounters, y = ward(n, seed=seed)
    if without_values is not None:
        events = events.filter(pl.col("subject_id") != without_values)
    outcomes = pl.DataFrame(
        {
            "encounter_id": samples["encounter_id"], "subject_id": samples["subject_id"],
            "discharge_time": [NOON + timedelta(days=2)] * n, "death_time": [None] * n,
            "died_in_hospital": y == 1, "icu_days": [4.0] * n,
        },
        schema=empty("outcomes").schema,
    )  # fmt: skip
    write_table(encounters, "encounters", data / "encounters.parquet")
    write_table(outcomes, "outcomes", data / "outcomes.parquet")
    for shard in range(2):
        part = events.filter(pl.col("subject_id") % 2 == shard)
        write_table(part, "events", data / "events" / f"{shard:04d}.parquet", shard=shard)
