"""Values that Nightingale computes: the Glasgow Coma Scale total, marked as derived."""

from __future__ import annotations

import polars as pl

PARTS = ("gcs_eye", "gcs_verbal", "gcs_motor")
TOTAL = "gcs_total"


def derive_gcs_total(events: pl.DataFrame) -> pl.DataFrame:
    """Return totals for moments with one value of each part and no charted total (Teasdale and Jennett 1974).

    MIMIC-IV charts the parts only. An intubated patient's verbal response counts 1, as the benchmark of
    Harutyunyan et al. has it. The total is known when the last part is, and refers to the motor response.
    """
    moment = ["subject_id", "time"]
    parts = events.filter(pl.col("code").is_in(list(PARTS)))
    charted = events.filter(pl.col("code") == TOTAL).select(moment).unique()
    motor = pl.col("code") == "gcs_motor"
    return (
        parts.group_by(moment)
        .agg(
            pl.len().alias("n"),
            pl.col("code").n_unique().alias("kinds"),
            pl.col("numeric_value").sum(),
            pl.col("available_time").max(),
            pl.col("encounter_id").filter(motor).first(),
            pl.col("source_ref").filter(motor).first(),
        )
        .filter((pl.col("n") == len(PARTS)) & (pl.col("kinds") == len(PARTS)))
        .join(charted, on=moment, how="anti")
        .with_columns(
            pl.lit(TOTAL).cast(events.schema["code"]).alias("code"),
            pl.col("numeric_value").cast(pl.Int32).cast(pl.String).alias("text_value"),
            pl.lit(True).alias("derived"),
        )
        .select(events.columns)
    )
