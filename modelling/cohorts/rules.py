"""Rules by which benchmarks choose whole stays; they look at the stay's end, so none holds in deployment."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import polars as pl

Rule = Callable[[pl.DataFrame, pl.DataFrame], pl.DataFrame]
"""From stays and events to the stays that are kept."""

WEEK_HOURS = 168
"""YAIB looks at the first seven days of a stay."""
LEAST_HOURS_WITH_VALUE = 4
LONGEST_GAP_HOURS = 12
HIGHEST_BASELINE = 4.0
"""mg/dL; above it a kidney is taken as failed before (YAIB)."""


def one_stay_an_admission(stays: pl.DataFrame) -> pl.DataFrame:
    """Keep stays that are their admission's only one."""
    admission = pl.coalesce("part_of", "encounter_id")
    return stays.filter(pl.len().over(admission) == 1)


def no_unit_transfer(stays: pl.DataFrame) -> pl.DataFrame:
    """Keep stays in one intensive care unit."""
    wards = pl.col("moves").list.eval(pl.element().struct.field("ward")).list.drop_nulls().list.n_unique()
    return stays.filter(wards <= 1)


def first_stay(stays: pl.DataFrame) -> pl.DataFrame:
    """Keep every patient's first stay."""
    return stays.sort("subject_id", "start", "encounter_id").unique(
        "subject_id", keep="first", maintain_order=True
    )


def stay_of(stays: pl.DataFrame, hours: float) -> pl.DataFrame:
    """Keep stays of so many hours or more, and those that have not ended."""
    long = pl.col("end") - pl.col("start") >= timedelta(hours=hours)
    return stays.filter(pl.col("end").is_null() | long)


def hours_with_value(stays: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """Return ``encounter_id``, ``hour``: hours of each stay's first week in which any value was charted."""
    return (
        stays.select("encounter_id", "subject_id", "start", "end")
        .join(events.select("subject_id", "time"), on="subject_id")
        .filter(
            (pl.col("time") >= pl.col("start"))
            & (pl.col("end").is_null() | (pl.col("time") <= pl.col("end")))
        )
        .select("encounter_id", ((pl.col("time") - pl.col("start")).dt.total_hours()).alias("hour"))
        .filter(pl.col("hour") < WEEK_HOURS)
        .unique()
    )


def values_in_four_hours(stays: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """Keep stays with values in four different hours or more."""
    hours = hours_with_value(stays, events).group_by("encounter_id").len("n")
    enough = hours.filter(pl.col("n") >= LEAST_HOURS_WITH_VALUE)
    return stays.join(enough, on="encounter_id", how="semi", maintain_order="left")


def no_long_gap(stays: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """Keep stays without twelve hours and more between two hours with values, or before the end of the week.

    A gap is counted in hours without any value, from admission to the stay's end or the seventh day.
    """
    hours = hours_with_value(stays, events)
    whole = (pl.col("end") - pl.col("start")).dt.total_hours()
    limits = stays.filter(pl.col("end").is_not_null()).select(
        "encounter_id", whole.clip(0, WEEK_HOURS - 1).alias("last")
    )
    edges = pl.concat(
        [
            hours,
            limits.select("encounter_id", pl.lit(-1, pl.Int64).alias("hour")),
            limits.select("encounter_id", (pl.col("last") + 1).alias("hour")),
        ]
    )
    empty_hours = pl.col("hour") - pl.col("hour").shift(1).over("encounter_id") - 1
    gaps = (
        edges.sort("encounter_id", "hour")
        .with_columns(empty_hours.alias("gap"))
        .group_by("encounter_id")
        .agg(pl.col("gap").max())
        .filter(pl.col("gap") > LONGEST_GAP_HOURS)
    )
    return stays.join(gaps, on="encounter_id", how="anti", maintain_order="left")


def baseline_creatinine(stays: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """Leave out stays whose lowest creatinine of the week before, or whose first one, is above 4 mg/dL."""
    values = events.filter(pl.col("code") == "creatinine").select("subject_id", "time", "numeric_value")
    measured = stays.select("encounter_id", "subject_id", "start", "end").join(values, on="subject_id")
    before = measured.filter(
        (pl.col("time") < pl.col("start")) & (pl.col("time") >= pl.col("start") - pl.duration(days=7))
    )
    first = (
        measured.filter(
            (pl.col("time") >= pl.col("start"))
            & (pl.col("end").is_null() | (pl.col("time") <= pl.col("end")))
        )
        .sort("encounter_id", "time")
        .unique("encounter_id", keep="first", maintain_order=True)
    )
    high = (
        pl.concat([before, first])
        .group_by("encounter_id")
        .agg(pl.col("numeric_value").min())
        .filter(pl.col("numeric_value") > HIGHEST_BASELINE)
    )
    return stays.join(high, on="encounter_id", how="anti", maintain_order="left")


RULES: dict[str, tuple[str, Callable[[pl.DataFrame], pl.DataFrame]]] = {
    "one_stay_an_admission": ("one ICU stay in the admission", one_stay_an_admission),
    "no_unit_transfer": ("no transfer between ICUs", no_unit_transfer),
    "first_stay": ("the patient's first ICU stay", first_stay),
    "stay_of_6_hours": ("ICU stay of 6 h or longer", lambda stays: stay_of(stays, 6)),
    "stay_of_30_hours": ("ICU stay of 30 h or longer", lambda stays: stay_of(stays, 30)),
    "stay_of_48_hours": ("ICU stay of 48 h or longer", lambda stays: stay_of(stays, 48)),
}
"""Rules that look at stays alone: words for the attrition table, and the rule."""

VALUE_RULES: dict[str, tuple[str, Rule]] = {
    "values_in_four_hours": ("values in 4 hours or more", values_in_four_hours),
    "no_long_gap": ("no gap of more than 12 h", no_long_gap),
    "baseline_creatinine": ("baseline creatinine of 4 mg/dL or less", baseline_creatinine),
}
"""Rules that look at values, too."""
