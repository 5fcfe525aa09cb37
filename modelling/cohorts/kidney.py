"""Acute kidney injury by KDIGO (2012), and creatinine as an outcome."""

from __future__ import annotations

import polars as pl

RISE_48_HOURS = 0.3
"""mg/dL within 48 hours (KDIGO stage 1)."""
RATIO_7_DAYS = 1.5
"""Times the lowest value of 7 days (KDIGO stage 1)."""
URINE_RATE = 0.5
"""mL/kg/h over 6 hours (KDIGO stage 1)."""


def injury_times(events: pl.DataFrame) -> pl.DataFrame:
    """Return every moment at which a KDIGO criterion of stage 1 or above holds: ``subject_id``, ``time``.

    The baseline is the lowest creatinine of the preceding window, never a later one. Urine counts where a
    weight was known and urine had been charted for six hours.
    """
    creatinine = (
        events.filter(pl.col("code") == "creatinine")
        .select("subject_id", "time", value=pl.col("numeric_value").cast(pl.Float64))
        .sort("subject_id", "time")
        .with_columns(
            pl.col("value").rolling_min_by("time", "48h", closed="both").over("subject_id").alias("low_2d"),
            pl.col("value").rolling_min_by("time", "7d", closed="both").over("subject_id").alias("low_7d"),
        )
        .filter(
            (pl.col("value") >= pl.col("low_2d") + RISE_48_HOURS - 1e-6)
            | (pl.col("value") >= pl.col("low_7d") * RATIO_7_DAYS - 1e-6)
        )
    )
    return (
        pl.concat([creatinine.select("subject_id", "time"), _low_urine(events)])
        .unique()
        .sort("subject_id", "time")
    )


def _low_urine(events: pl.DataFrame) -> pl.DataFrame:
    weight = (
        events.filter(pl.col("code") == "weight")
        .select("subject_id", "time", weight=pl.col("numeric_value").cast(pl.Float64))
        .sort("time")
    )
    urine = (
        events.filter(pl.col("code") == "urine_output")
        .select("subject_id", "time", volume=pl.col("numeric_value").cast(pl.Float64))
        .sort("subject_id", "time")
        .with_columns(
            pl.col("volume")
            .rolling_sum_by("time", "6h", closed="right")
            .over("subject_id")
            .alias("six_hours"),
            pl.col("time").rolling_min_by("time", "24h", closed="both").over("subject_id").alias("first"),
        )
        .filter(pl.col("time") - pl.col("first") >= pl.duration(hours=6))
        .sort("time")
    )
    return (
        urine.join_asof(weight, on="time", by="subject_id", strategy="backward", check_sortedness=False)
        .filter(pl.col("six_hours") < URINE_RATE * 6 * pl.col("weight"))
        .select("subject_id", "time")
    )


def creatinine_after(events: pl.DataFrame, asked: pl.DataFrame, *, hours: float) -> pl.DataFrame:
    """Return ``encounter_id``, ``prediction_time`` and ``value``: median creatinine of the hours after it."""
    values = events.filter(pl.col("code") == "creatinine").select("subject_id", "time", "numeric_value")
    return (
        asked.select("subject_id", "encounter_id", "prediction_time", "end")
        .join(values, on="subject_id")
        .filter(
            (pl.col("time") > pl.col("prediction_time"))
            & (pl.col("time") <= pl.col("prediction_time") + pl.duration(minutes=round(hours * 60)))
            & (pl.col("end").is_null() | (pl.col("time") <= pl.col("end")))
        )
        .group_by("encounter_id", "prediction_time")
        .agg(pl.col("numeric_value").cast(pl.Float64).median().alias("value"))
    )
